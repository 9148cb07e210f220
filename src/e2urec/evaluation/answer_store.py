"""Answers on disk, as safetensors: what an interrupted comparison goes on from.

What models say of D_f tells of these rows nearly all that they hold. It is kept encrypted, since a
killed comparison leaves it behind.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load, load_file, save, save_file

from ..core.arrays import Head
from ..core.durable import write_file
from ..core.errors import RunError
from ..core.sealing import seal, unseal
from ..models.predictions import NO_HEAD, Predictions
from .answers import Answers

Table = dict[str, npt.NDArray[Any]]

COLUMNS = ("log_odds", "labels", "users")
"""Of every set of rows; states are kept for D_f alone, where vocabulary distances are measured."""


SEALED_PARTS = ("forget", "rewritten")
"""Rows of D_f, and of prompts that showed one."""
SEALED = "sealed"
"""Column of the file that holds all columns of these parts, encrypted."""


@dataclass
class AnswerStore:
    """Answers in a folder, one file a model; an output head that models share is written once.

    Attributes:
        folder: of the output heads.
        key: under which answers to D_f are encrypted, 32 bytes.
        heads: those that were read, by name.
    """

    folder: Path
    key: bytes
    heads: dict[str, Head] = field(default_factory=dict)

    def save(self, path: Path, answers: Answers) -> None:
        """Write `answers` to `path`."""
        table = {}
        for part, rows in answers.parts().items():
            for column in COLUMNS:
                table[f"{part}.{column}"] = np.ascontiguousarray(getattr(rows, column))
        # States of test rows are never read again, and would be most of the file.
        metadata = {}
        forget = answers.forget
        if forget.hidden is not None:
            table["forget.hidden"] = np.ascontiguousarray(forget.hidden)
            metadata["head"] = self._save_head(forget.head)
        save_file(_sealed(table, self.key), path, metadata)

    def load(self, path: Path) -> Answers:
        """Read what `save` wrote.

        Raises:
            RunError: it was written under another key, or is damaged.
        """
        table = _unsealed(load_file(path), self.key, path)
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
        head = self._load_head(metadata["head"]) if "head" in metadata else NO_HEAD
        # Keys are `part.column`; a dict keeps each part once, in order.
        names = dict.fromkeys(key.split(".")[0] for key in table)
        parts = {}
        for name in names:
            hidden = table.get(f"{name}.hidden")
            columns = {column: table[f"{name}.{column}"] for column in COLUMNS}
            part_head = NO_HEAD if hidden is None else head
            parts[name] = Predictions(hidden=hidden, head=part_head, **columns)
        return Answers(**parts)

    def _save_head(self, head: Head) -> str:
        weight, bias = head
        table = {"weight": weight}
        if bias is not None:
            table["bias"] = bias
        # Named by its content: models that share a head share the file.
        digest = hashlib.sha256()
        for values in table.values():
            digest.update(np.ascontiguousarray(values).tobytes())
        name = digest.hexdigest()[:16]
        path = self._head_path(name)
        if not path.is_file():
            write_file(path, lambda partial: save_file(table, partial))
        return name

    def _load_head(self, name: str) -> Head:
        if name not in self.heads:
            table = load_file(self._head_path(name))
            self.heads[name] = (table["weight"], table.get("bias"))
        return self.heads[name]

    def _head_path(self, name: str) -> Path:
        return self.folder / f"head-{name}.safetensors"


def _sealed(table: Table, key: bytes) -> Table:
    """The same columns, with those of D_f encrypted in one."""
    secret: Table = {}
    plain: Table = {}
    for name, column in table.items():
        part = secret if name.split(".")[0] in SEALED_PARTS else plain
        part[name] = column
    sealed = np.frombuffer(seal(save(secret), key), np.uint8)
    return plain | {SEALED: sealed}


def _unsealed(table: Table, key: bytes, path: Path) -> Table:
    """The columns that `_sealed` was given, out of the file `path`."""
    plain = dict(table)
    try:
        content = unseal(plain.pop(SEALED).tobytes(), key)
    except (KeyError, ValueError) as error:
        raise RunError(
            f"'{path}': answers to D_f were kept under another key, or are damaged; give that key "
            "in E2UREC_KEY_FILE, or start anew after: e2urec discard"
        ) from error
    table_of_secrets: Table = load(content)
    return plain | table_of_secrets
