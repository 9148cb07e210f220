"""Answers on disk, as safetensors: what an interrupted comparison goes on from."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ..core.arrays import Head
from ..models.predictions import Predictions
from .membership import Answers

COLUMNS = ("log_odds", "labels", "users")


@dataclass
class Kept:
    """Answers in a folder, one file a model; an output head that models share is written once.

    States are kept for D_f alone, where distances over the vocabulary are measured.
    """

    folder: Path
    heads: dict[str, Head] = field(default_factory=dict)

    def save(self, path: Path, answers: Answers) -> None:
        """Write `answers` to `path`; nothing where there are none."""
        if not answers:
            return
        table = {
            f"{part}.{name}": getattr(rows, name)
            for part, rows in answers.items()
            for name in COLUMNS
        }
        forget, meta = answers["forget"], {}
        if forget.hidden is not None:
            table["forget.hidden"] = forget.hidden
            meta["head"] = self._save_head(forget.head)
        save_file(
            {name: np.ascontiguousarray(values) for name, values in table.items()}, path, meta
        )

    def load(self, path: Path) -> dict[str, Predictions]:
        """Read what `save` wrote."""
        if not path.is_file():
            return {}
        table, told = load_file(path), _metadata(path)
        none: Head = (np.zeros((0, 0), np.float32), None)
        head = self._load_head(told["head"]) if "head" in told else none
        parts = dict.fromkeys(name.split(".")[0] for name in table)
        return {
            part: Predictions(
                hidden=table.get(f"{part}.hidden"),
                head=head if f"{part}.hidden" in table else none,
                **{name: table[f"{part}.{name}"] for name in COLUMNS},
            )
            for part in parts
        }

    def _save_head(self, head: Head) -> str:
        weight, bias = head
        table = {"weight": weight} | ({} if bias is None else {"bias": bias})
        digest = hashlib.sha256()
        for values in table.values():
            digest.update(np.ascontiguousarray(values).tobytes())
        name = digest.hexdigest()[:16]
        path = self.folder / f"head-{name}.safetensors"
        if not path.is_file():
            half = path.with_suffix(".tmp")
            save_file(table, half)
            half.replace(path)
        return name

    def _load_head(self, name: str) -> Head:
        if name not in self.heads:
            table = load_file(self.folder / f"head-{name}.safetensors")
            self.heads[name] = (table["weight"], table.get("bias"))
        return self.heads[name]


def _metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})
