"""A worker of a comparison's jobs whose cells are files, so that it needs no model library."""

import os
import signal
import time
from pathlib import Path

from e2urec.core.durable import make_folders, publish_folder
from e2urec.core.locks import private_folder
from e2urec.experiments.comparison.cell_report import CellReport
from e2urec.experiments.comparison.worker import Worker

VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


class ToyWorker(Worker):
    """Makes cells that hold what the process was given; what goes wrong is in a cell's name."""

    def __call__(self, seed: int, keys: tuple[str, ...]) -> None:
        """Make the cells, and report of them unless it shall not be understood."""
        super().__call__(seed, keys)
        if any("garbled" in key for key in keys):
            self.report.write_text('{"reports": [{"kee": 1}]}')

    def make(self, seed: int, keys: tuple[str, ...]) -> list[CellReport]:
        """The cells that are not there yet."""
        return [self._make(key) for key in keys]

    def _make(self, key: str) -> CellReport:
        cells = self.folder.parent / "cells"
        path = cells / key
        make_folders(path.parent)
        if not path.is_dir():
            with private_folder(path) as partial:
                misbehave(cells, key)
                lines = [os.environ.get(name, "") for name in VARIABLES]
                (partial / "given").write_text("\n".join(lines))
                publish_folder(partial, path)
        if "misread" in key:
            return CellReport(key, error=("DataError", "ratings.csv: misread; correct the row"))
        return CellReport(key, lines=[f"made {key}"])


class TrappedWorker(ToyWorker):
    """Gives submitit a result that does something when it is loaded."""

    def __call__(self, seed: int, keys: tuple[str, ...]) -> "Trap":  # type: ignore[override]
        """Make the cells and report of them as others do."""
        super().__call__(seed, keys)
        return Trap(self.folder.parent / "sprung")


class Trap:
    """Makes a file in the process that unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def misbehave(cells: Path, key: str) -> None:
    """Do what the name of a cell says."""
    if "killed" in key:
        os.kill(os.getpid(), signal.SIGKILL)
    if "preempted" in key and not (cells / "again").exists():
        (cells / "again").touch()
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(30)
    if "crash" in key:
        raise RuntimeError("no such luck")
    if "endless" in key:
        (cells / "under way").touch()
        for _ in range(1200):
            time.sleep(0.05)
