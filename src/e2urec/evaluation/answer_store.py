"""Answers on disk, as safetensors: what an interrupted comparison goes on from.

What models say of D_f tells of these rows nearly all that they hold. It is kept encrypted, since a
killed comparison leaves it behind.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load, load_file, save, save_file

from ..core.arrays import Head
from ..core.contents import hash_file, remove
from ..core.durable import write_file
from ..core.errors import RunError
from ..core.reading import UNREADABLE, damaged
from ..core.sealing import seal, unseal
from ..models.predictions import NO_HEAD, Predictions
from .answers import Answers

Table = dict[str, npt.NDArray[Any]]

REMEDY = "run the same command again, which makes it anew"
COLUMNS = ("log_odds", "labels", "users")
"""Of every set of rows; states are kept for D_f alone, where vocabulary distances are measured."""
SEALED_PARTS = ("forget", "rewritten")
"""Rows of D_f, and of prompts that showed one."""
SEALED_COLUMN = "users"
"""Of every part: who has rows before the request and none after it is who was forgotten."""
SET = "set_"
"""Columns of an output head: tokens that count as one, a column each set."""
SEALED = "sealed"
"""Column of the file that holds all columns of these parts, encrypted."""


@dataclass
class AnswerStore:
    """Answers in a folder, one file a model; an output head that models share is written once.

    Attributes:
        folder: of the output heads.
        key: under which answers to D_f are encrypted, 32 bytes.
        heads: those that were read, by name.
        head_hashes: SHA-256 of the files of those that were written, by name.
    """

    folder: Path
    key: bytes
    heads: dict[str, Head] = field(default_factory=dict)
    head_hashes: dict[str, str] = field(default_factory=dict)

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
            name = self._save_head(forget.head, path.parent)
            metadata = {"head": name, "head_sha256": self.head_hashes[name]}
        save_file(_sealed(table, self.key), path, metadata)

    def load(self, path: Path) -> Answers:
        """Read what `save` wrote.

        Raises:
            RunError: the file or its head is missing, damaged or of another shape, or it was
                written under another key.
        """
        try:
            return self._load(path)
        except UNREADABLE as error:
            raise damaged(path, REMEDY, error) from error

    def fault_of(self, path: Path) -> str | None:
        """What is wrong with the head of the answers in `path`, if there are any; None: nothing."""
        if not path.is_file():
            return None
        head_path = None
        try:
            metadata = _metadata(path)
            if "head" in metadata:
                head_path = self._head_path(metadata["head"])
                _check_head(head_path, metadata)
        except (*UNREADABLE, RunError):
            return f"'{head_path or path}': is missing or damaged"
        return None

    def _load(self, path: Path) -> Answers:
        table = _unsealed(load_file(path), self.key, path)
        metadata = _metadata(path)
        head = self._load_head(metadata) if "head" in metadata else NO_HEAD
        # Keys are `part.column`; a dict keeps each part once, in order.
        names = dict.fromkeys(key.split(".")[0] for key in table)
        parts = {}
        for name in names:
            hidden = table.get(f"{name}.hidden")
            columns = {column: table[f"{name}.{column}"] for column in COLUMNS}
            part_head = NO_HEAD if hidden is None else head
            parts[name] = Predictions(hidden=hidden, head=part_head, **columns)
        return Answers(**parts)

    def _save_head(self, head: Head, scratch: Path) -> str:
        """Write a head unless it was; half-written, it is in the folder `scratch`."""
        table = {"weight": head.weight}
        if head.bias is not None:
            table["bias"] = head.bias
        if head.cap is not None:
            table["cap"] = np.array(head.cap, np.float64)
        for number, tokens in enumerate(head.sets):
            table[f"{SET}{number}"] = np.array(tokens, np.int64)
        # Named by its content: models that share a head share the file.
        digest = hashlib.sha256()
        for values in table.values():
            digest.update(np.ascontiguousarray(values).tobytes())
        name = digest.hexdigest()[:16]
        path = self._head_path(name)
        # One that an earlier process left may be damaged. It is replaced, and not removed first,
        # since a process beside this one may be reading it.
        if name not in self.head_hashes:
            if path.is_dir() or path.is_symlink():
                remove(path)
            write_file(path, lambda partial: save_file(table, partial), scratch=scratch)
            self.head_hashes[name] = hash_file(path)
        return name

    def _load_head(self, metadata: Mapping[str, str]) -> Head:
        name = metadata["head"]
        if name not in self.heads:
            path = self._head_path(name)
            _check_head(path, metadata)
            table = load_file(path)
            cap = table.get("cap")
            sets = [table[key].tolist() for key in sorted(table) if key.startswith(SET)]
            self.heads[name] = Head(
                table["weight"],
                table.get("bias"),
                None if cap is None else float(cap),
                tuple(map(tuple, sets)),
            )
        return self.heads[name]

    def _head_path(self, name: str) -> Path:
        return self.folder / f"head-{name}.safetensors"


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def _check_head(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise RunError unless the head is the one that these answers were given with."""
    if hash_file(path) != metadata.get("head_sha256"):
        raise damaged(path, REMEDY)


def _sealed(table: Table, key: bytes) -> Table:
    """The same columns, with those of D_f, and whose rows they are, encrypted in one."""
    secret: Table = {}
    plain: Table = {}
    for name, column in table.items():
        part, kind = name.split(".")
        is_secret = part in SEALED_PARTS or kind == SEALED_COLUMN
        group = secret if is_secret else plain
        group[name] = column
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
