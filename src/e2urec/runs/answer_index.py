"""What a run's own model answers to some of its rows, so that a request need not ask again.

The answers are of one model, whose stamp they bear. A request makes another model, so its run gets
answers of its own.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..core.arrays import Floats, Ints
from ..core.contents import hash_file, list_files
from ..core.say import Say, no_words
from ..data.samples import Samples
from ..models.batches import Examples
from .copying import MODEL, is_of_model
from .folder import Run
from .row_digests import RowKey
from .row_figures import RowFigures

FILE = "answers.npz"


@dataclass(frozen=True)
class AnswerIndex(RowFigures):
    """The log-odds of Yes against No of some rows, by the row's hash, and what was asked."""

    FILE: ClassVar[str] = FILE
    COLUMN: ClassVar[str] = "answers"
    COUNT: ClassVar[int] = 2
    REMEDY: ClassVar[str] = "train anew"
    STAMP_BYTES: ClassVar[int] = 32

    def log_odds_of(self, samples: Samples, prompts: Examples) -> Floats:
        """The log-odds (n,) of the samples' own rows; NaN where there are none of this prompt.

        Args:
            samples: n rows.
            prompts: of these. A row's hash does not have all that its prompt shows: an item may
                have got another title where the data are kept.
        """
        log_odds: Floats
        log_odds, asked_checksums = self.figures_of(samples)
        is_other = asked_checksums != _checksums(prompts)
        log_odds[is_other] = np.nan
        return log_odds


def answer_index(
    folder: Path,
    parts: Sequence[Samples],
    prompts: Sequence[Examples],
    log_odds: Floats,
    key: RowKey,
    arithmetic: str,
) -> AnswerIndex:
    """What the model in `folder` answers to `prompts`, of the rows of `parts`: log-odds (n,)."""
    # Scratch files and checkpoints of gigabytes may lie beside the model while a run is made.
    model_files = {name: path for name, path in list_files(folder).items() if is_of_model(name)}
    files = {name: hash_file(path) for name, path in model_files.items()}
    checksums = np.concatenate([_checksums(part) for part in prompts])
    figures = np.stack([log_odds, checksums])
    return AnswerIndex.of_parts(parts, figures, key, _stamp(files, arithmetic))


def answers_of_run(
    run: Run, controller_key: bytes, arithmetic: str, say: Say = no_words
) -> AnswerIndex | None:
    """The answers of a run; None where it has none of its own model in this arithmetic.

    `say` is told where it has others.

    Raises:
        RunError: the file is damaged, or was made under another key.
    """
    index = AnswerIndex.load(run.path, controller_key)
    files = {name: file.sha256 for name, file in run.record.files.items()}
    if index is None:
        return None
    if index.stamp != _stamp(files, arithmetic):
        say(
            f"'{run.path / FILE}': these answers are not used, since the model, its precision or "
            "the kind of processor is another than when they were given; the model is asked anew"
        )
        return None
    return index


def _checksums(prompts: Examples) -> Ints:
    """(n,) CRC-32 of the tokens of each prompt, cut to 24 bits: a float32 holds these exactly."""
    tokens = prompts.tokens.astype(np.int32)
    checksums = []
    for start, end in zip(prompts.offsets[:-1], prompts.offsets[1:], strict=True):
        checksum = zlib.crc32(tokens[start:end].tobytes())
        checksums.append(checksum & 0xFFFFFF)
    return np.array(checksums, dtype=np.int64)


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
