"""Finished cells of a comparison, one folder a cell, so that an interrupted one goes on."""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.contents import CONTENTS, fault_of, remove, write_contents
from ..core.derived_keys import derived_key
from ..core.disk import is_full
from ..core.durable import make_folders, publish_folder, write_text
from ..core.errors import RunError
from ..core.launch import wait_for_all
from ..core.locks import private_folder
from ..core.process import first_process, rank
from ..core.reading import damaged, read_object
from ..core.say import Say
from ..evaluation.answer_store import AnswerStore
from ..evaluation.answers import Answers
from ..evaluation.comparison import CellRecord, Making
from ..models.sharing import is_true_for_all
from ..runs.files import write_json
from ..runs.keys import controller_key, settings_digest
from ..runs.machine import this_machine

ANSWERS = "answers.safetensors"
RECORD = "cell.json"
MADE = "made.json"
"""File of each folder that says how long it took, and on which machine."""
SETTINGS = "settings.hmac"
"""File beside the cells that says with what they were begun."""
REMEDY = "run the same command again, which makes the cell anew"


@dataclass(frozen=True)
class FinishedCell:
    """A model of the grid: what it said, and how it was made."""

    answers: Answers
    record: CellRecord


@dataclass
class Grid:
    """Finished cells in a folder. What is asked for a second time is read from there.

    Attributes:
        folder: of the cells.
        total: cells that there will be, for `say`; 0: it is not told of finished ones.
        say: told of each finished cell, and of those that failed or were damaged.
        key: file of the controller's key, under which answers to D_f are kept; see
            `runs.keys.controller_key`.
        failed: why a cell could not be made; it is not tried a second time.
        jobs: cells that are made at once, by processes that each have a grid of this folder.
        tally: cells that `say` has heard of.
        seconds: that this process took for all folders so far.
    """

    folder: Path
    total: int
    say: Say
    key: Path | None = None
    failed: dict[str, str] = field(default_factory=dict)
    jobs: int = 1
    tally: set[str] = field(default_factory=set)
    seconds: float = 0.0

    @cached_property
    def store(self) -> AnswerStore:
        """The cells' answers."""
        return AnswerStore(self.folder, self._derived_key(b"e2urec answers"))

    @cached_property
    def mac_key(self) -> bytes:
        """Under which it is written what a folder holds."""
        return self._derived_key(b"e2urec cells")

    def _derived_key(self, purpose: bytes) -> bytes:
        return derived_key(controller_key(self.key), purpose)

    def cell(self, key: str, make: Callable[[Path], FinishedCell]) -> FinishedCell:
        """The cell `key`, made in a folder of its own unless it is there already.

        What comes back is always what was read from the disk, so a comparison that was interrupted
        ends as one that was not.
        """

        def save(folder: Path) -> None:
            cell = make(folder)
            if not first_process():
                return
            self.store.save(folder / ANSWERS, cell.answers)
            record = replace(cell.record, jobs=self.jobs)
            write_json(folder / RECORD, record.as_dict())

        # Written and read again even when it was made just now; see above.
        path = self.folder_of(key, save)
        values = read_object(path / RECORD, REMEDY)
        try:
            record = CellRecord(**values)
        except TypeError as error:
            raise damaged(path / RECORD, REMEDY) from error
        return FinishedCell(self.store.load(path / ANSWERS), record)

    def has(self, key: str) -> bool:
        """Whether the folder `key` is there already."""
        return (self.folder / key).is_dir()

    def is_whole(self, key: str) -> bool:
        """Whether the folder `key` is there as it was written; one that is not is removed."""
        self._remove_damaged(key)
        return self.has(key)

    def folder_of(self, key: str, save: Callable[[Path], None]) -> Path:
        """The folder `key`, filled by `save` unless it is there already.

        All processes call `save`, each in a folder of its own; that of the first one stays.
        """
        started = time.perf_counter()
        seconds_before = self.seconds
        path = self.folder / key
        if first_process():
            self._remove_damaged(key)
        wait_for_all()
        if not is_true_for_all(path.is_dir()):
            make_folders(path.parent)
            kind = "new" if first_process() else f"rank{rank()}"
            # Made aside and renamed: a folder of this name is always whole. One that fails goes:
            # a method may have left states of D_f there, which nobody will go on from.
            with private_folder(path, kind) as partial:
                save(partial)
                # What was made for this one on the way has a folder and seconds of its own.
                inner = self.seconds - seconds_before
                own = time.perf_counter() - started - inner
                self.seconds += own
                if first_process():
                    write_json(partial / MADE, {"seconds": own, "machine": this_machine()})
                    self._publish(partial, path)
            wait_for_all()
        self.tell(key, time.perf_counter() - started)
        return path

    def making(self) -> Making:
        """What all folders took so far, and where they were made; by jobs and earlier runs, too."""
        seconds: float | None = 0.0
        machines = []
        for path in sorted(self.folder.rglob(CONTENTS)):
            # Earlier versions did not say; a sum without these folders would be too small.
            if not (path.parent / MADE).is_file():
                seconds = None
                continue
            made = read_object(path.parent / MADE, REMEDY)
            if seconds is not None:
                seconds += made["seconds"]
            if made["machine"] not in machines:
                machines.append(made["machine"])
        return Making(machines, seconds)

    def _publish(self, partial: Path, path: Path) -> None:
        write_contents(partial, self.mac_key)
        # A worker that outlived its command may be first, with the same cell.
        if path.is_dir():
            return
        try:
            publish_folder(partial, path)
        except OSError:
            if not path.is_dir():
                raise

    def _remove_damaged(self, key: str) -> None:
        """Remove a cell that is not as it was written, after saying so: it is then made anew."""
        path = self.folder / key
        if not path.exists() and not path.is_symlink():
            return
        fault = fault_of(path, self.mac_key) or self.store.fault_of(path / ANSWERS)
        if fault is not None:
            self.say(f"{fault}; the cell is made anew")
            remove(path)

    def try_cell(self, key: str, make: Callable[[Path], FinishedCell]) -> FinishedCell | None:
        """The same, or None where it could not be made: the others go on."""
        if key in self.failed:
            return None
        started = time.perf_counter()
        try:
            return self.cell(key, make)
        except Exception as error:  # any bug of a method, ours or another package's, costs one cell
            # The disk is at fault, and not the method.
            if isinstance(error, OSError) or is_full(error):
                raise
            reason = " ".join(str(error).split())
            self.say(traceback.format_exc())
            self.fail(key, f"{type(error).__name__}: {reason}", time.perf_counter() - started)
            return None

    def fail(self, key: str, reason: str, seconds: float) -> None:
        """Note why a cell could not be made, after so many seconds."""
        self.failed[key] = reason
        self.tell(key, seconds, " FAILED")

    def tell(self, key: str, seconds: float, outcome: str = "") -> None:
        """Say that a cell is finished; of each it is said once."""
        if key in self.tally or not self.total:
            return
        # Cells that were there before count as well: the total is that of the whole plan.
        self.tally.add(key)
        self.say(f"[{len(self.tally)} of {self.total}] {key}{outcome}: {seconds:.1f} s")


def refuse_other_settings(folder: Path, settings: Mapping[str, Any], key: bytes) -> None:
    """Note what the cells in `folder` are made with; of several processes the first does.

    Args:
        folder: of unfinished work.
        settings: all that the cells depend on, besides the versions at work.
        key: the controller's.

    Raises:
        RunError: other cells were begun there.
    """
    if not first_process():
        return
    path = folder / SETTINGS
    digest = settings_digest(settings, key)
    if not path.is_file():
        write_text(path, digest)
    elif path.read_bytes() != digest.encode():
        # Whoever keeps the folder says how to remove it.
        raise RunError(
            f"'{folder}': was begun with other settings, data, models, key or versions of "
            "libraries; go on with those"
        )
