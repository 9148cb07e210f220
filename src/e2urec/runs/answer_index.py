"""What a run's own model answers to some of its rows, so that a request need not ask again.

The answers are of one model, whose stamp they bear. A request makes another model, so its run gets
answers of its own.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..core.arrays import Floats
from ..core.contents import hash_file, list_files
from ..data.samples import Samples
from .copying import MODEL, is_of_model
from .folder import Run
from .row_digests import RowKey
from .row_figures import RowFigures

FILE = "answers.npz"


@dataclass(frozen=True)
class AnswerIndex(RowFigures):
    """The log-odds of Yes against No of some rows, by the row's hash."""

    FILE: ClassVar[str] = FILE
    COLUMN: ClassVar[str] = "answers"
    COUNT: ClassVar[int] = 1
    REMEDY: ClassVar[str] = "train anew"
    STAMP_BYTES: ClassVar[int] = 32

    def log_odds_of(self, samples: Samples) -> Floats:
        """The log-odds of the samples' own rows, in their order; NaN for rows that have none."""
        log_odds: Floats = self.figures_of(samples)[0]
        return log_odds


def answer_index(
    folder: Path, parts: Sequence[Samples], log_odds: Floats, key: RowKey, arithmetic: str
) -> AnswerIndex:
    """What the model in `folder` answers to the rows of `parts`: their log-odds (n,)."""
    # Scratch files and checkpoints of gigabytes may lie beside the model while a run is made.
    model_files = {name: path for name, path in list_files(folder).items() if is_of_model(name)}
    files = {name: hash_file(path) for name, path in model_files.items()}
    return AnswerIndex.of_parts(parts, log_odds[None], key, _stamp(files, arithmetic))


def answers_of_run(run: Run, controller_key: bytes, arithmetic: str) -> AnswerIndex | None:
    """The answers of a run; None where it has none of its own model in this arithmetic.

    Raises:
        RunError: the file is damaged, or was made under another key.
    """
    index = AnswerIndex.load(run.path, controller_key)
    files = {name: file.sha256 for name, file in run.record.files.items()}
    if index is None or index.stamp != _stamp(files, arithmetic):
        return None
    return index


def _stamp(files: Mapping[str, str], arithmetic: str) -> bytes:
    """What the answers of a model depend on besides its rows.

    Args:
        files: SHA-256 of the files of a run, by name.
        arithmetic: precision and kind of processor. Answers in bf16 and in float32 differ, and
            those of two models are only compared in one of them.
    """
    lines = [f"{name} {files[name]}" for name in sorted(files) if is_of_model(name)]
    assert lines, f"a recommender is loaded from {MODEL}"
    return hashlib.sha256("\n".join([arithmetic, *lines]).encode()).digest()
