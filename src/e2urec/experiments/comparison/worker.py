"""What submitit runs: a worker makes one bundle of cells in a process of its own.

submitit pickles the worker and what it is called with, so both hold paths and names of cells alone.
The recipe is read from the folder, and the controller's key where the command has it. What became
of the cells goes back as JSON: the command loads no pickle, which could run code.

No model library is imported here: a worker chooses its GPU before one looks for it.
"""

import _thread
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ...core.process import handle_signals
from .cell_report import CellReport, write_reports

LOOK_SECONDS = 1.0
"""Between two looks at whether the command that a worker works for is still there."""
END_SECONDS = 10.0
"""In which a process removes what it was making; then it is ended."""


@dataclass(frozen=True)
class Worker:
    """Makes bundles of cells.

    Attributes:
        folder: of the jobs, in the unfinished part of a comparison; it goes with the command.
        report: file of the folder that is to say what became of the cells.
        parent: number of the command's process, on the same machine; None: it is on another.
        gpu: the one to work on, as CUDA_VISIBLE_DEVICES names it; None: as the machine has it.
    """

    folder: Path
    report: Path
    parent: int | None = None
    gpu: str | None = None

    def __call__(self, seed: int, keys: tuple[str, ...]) -> None:
        """Make the cells `keys`, as far as they are not there yet, and report of them."""
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu
        with self._watch():
            write_reports(self.report, self.make(seed, keys))

    def make(self, seed: int, keys: tuple[str, ...]) -> list[CellReport]:
        """The cells, in this process."""
        # Imported here; see above.
        from .cell_maker import make_cells

        return make_cells(self.folder, seed, keys)

    def checkpoint(self, seed: int, keys: tuple[str, ...]) -> Any:
        """The same once more, where the job is preempted: finished cells are kept."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, seed, keys)

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        """End this process, and remove what it was making, when its command is gone."""
        # Called by the command itself there is nothing to watch.
        if self.parent == os.getpid():
            yield
            return
        # On a cluster SIGTERM announces that a job is preempted, which submitit sees to.
        if self.parent is not None:
            handle_signals()
        is_over = threading.Event()
        threading.Thread(target=self._look, args=(is_over,), daemon=True).start()
        try:
            yield
        finally:
            is_over.set()

    def _look(self, is_over: threading.Event) -> None:
        while not is_over.wait(LOOK_SECONDS):
            if self._is_orphan():
                # As Ctrl-C does, which the command keeps from its workers; one in the background
                # of a script ignores it, and they inherit that.
                is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
                _thread.interrupt_main(signal.SIGTERM if is_ignored else signal.SIGINT)
                if not is_over.wait(END_SECONDS):
                    os._exit(1)
                return

    def _is_orphan(self) -> bool:
        if not self.folder.is_dir():
            return True
        if self.parent is None:
            return False
        # Between the command and its worker stands submitit's controller.
        try:
            controller = psutil.Process(os.getppid())
            return bool(controller.ppid() != self.parent)
        except psutil.NoSuchProcess:
            return True
