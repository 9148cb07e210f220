"""Answers on disk, as safetensors: what an interrupted comparison goes on from."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ..core.arrays import Head
from ..core.durable import write_file
from ..models.predictions import NO_HEAD, Predictions
from .answers import Answers

COLUMNS = ("log_odds", "labels", "users")
"""Of every set of rows; states are kept for D_f alone, where vocabulary distances are measured."""


@dataclass
class AnswerStore:
    """Answers in a folder, one file a model; an output head that models share is written once.

    Attributes:
        folder: of the output heads.
        heads: those that were read, by name.
    """

    folder: Path
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
        save_file(table, path, metadata)

    def load(self, path: Path) -> Answers:
        """Read what `save` wrote."""
        table = load_file(path)
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
