"""Checkpoints: where training stands, on the disk, so that a command that was killed goes on.

A command calls `fit` in the same order whenever it runs, so a checkpoint is known by the place of
its call in that order. Of a call under way it holds the whole `TrainingState`; of one that has
ended, the parameters that it ended with. What happens between two calls is done anew: teachers,
caches and answers are on no disk.

Tensors and JSON alone: loading a checkpoint runs no code.
"""

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file

from ..core.contents import hash_file
from ..core.disk import require_room
from ..core.durable import sync_file, sync_folder
from ..core.errors import RunError
from ..core.launch import wait_for_all
from ..core.process import first_process
from ..core.say import Say, no_words
from ..core.sealing import read_sealed, write_sealed
from .state import TrainingState

SUFFIX = ".safetensors"
# Written under this name first: a file of the other suffix is always whole.
ASIDE = ".new"
# Sorts behind every number of steps, all of which begin with a digit.
END = "end"
STEM = re.compile(rf"(\d+)-(\d+|{END})-([0-9a-f]{{64}})")
POSITION = "position"
"""Tensor whose bytes are JSON: the place of the call, and the state's plain values."""
ROLLING = 2
"""Files of a call that stay: the newest, and the one before it, should the newest be damaged."""


class Checkpoints:
    """Keeps nothing: what training does unless it is told where."""

    def begin(self, part: str) -> None:
        """Begin `part` of a command."""

    def enter(self, state: TrainingState, call: dict[str, Any]) -> bool:
        """Bring `state` to where this call of `fit` was; return whether it has ended already."""
        return False

    def step(self, state: TrainingState) -> None:
        """Is told of each step that was taken."""

    def leave(self, state: TrainingState) -> None:
        """Is told that the call has ended."""


NO_CHECKPOINTS = Checkpoints()


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint on the disk: `CALL-STEPS-SHA256.safetensors`, or `CALL-end-SHA256…`.

    Its name says what it is and whether it is whole, so that one rename makes it true.
    """

    path: Path
    call: int
    step: str
    sha256: str

    @classmethod
    def all_in(cls, folder: Path) -> list["CheckpointFile"]:
        """Those in `folder`, the oldest first; what has another name is none of ours."""
        files = []
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if match := STEM.fullmatch(path.stem):
                call, step, sha256 = match.groups()
                files.append(cls(path, int(call), step, sha256))
        return files

    @property
    def is_whole(self) -> bool:
        """Whether the file is what was written."""
        try:
            return hash_file(self.path) == self.sha256
        except OSError:
            return False


@dataclass
class CheckpointFolder(Checkpoints):
    """Writes a checkpoint now and then, and when a call of `fit` ends; reads the newest whole one.

    Of several processes the first one writes: they hold the same parameters after each step. All
    of them read.

    Attributes:
        folder: where they are; made with the first one.
        seconds: from one checkpoint to the next within a call.
        say: told where training goes on, and of what is damaged.
        key: under which they are encrypted, 32 bytes; None: they are not.
    """

    folder: Path
    seconds: float
    say: Say = no_words
    key: bytes | None = None
    calls: int = field(default=0, init=False)
    call: dict[str, Any] = field(default_factory=dict, init=False)
    call_start: float = field(default=0.0, init=False)
    last_write: float = field(default_factory=time.monotonic, init=False)

    def begin(self, part: str) -> None:
        """Begin `part` of a command, whose finished parts are kept by other means.

        Its calls of `fit` are counted from the first. Checkpoints of other parts go.
        """
        self.calls = 0
        self.call = {"part": part}
        if first_process():
            self._remove_other_parts(part)
        wait_for_all()

    def _remove_other_parts(self, part: str) -> None:
        for file in CheckpointFile.all_in(self.folder):
            # A damaged one says nothing of what it is of.
            is_own = file.is_whole and self._read(file.path)[0]["call"]["part"] == part
            if not is_own:
                file.path.unlink()

    def enter(self, state: TrainingState, call: dict[str, Any]) -> bool:
        """As `Checkpoints` has it.

        Raises:
            RunError: a checkpoint is that of another call, or the disk has no room for more.
        """
        self.calls += 1
        self.call = {"part": self.call.get("part"), "place": self.calls, **call}
        is_over = self._restore(state)
        if not is_over:
            self._require_room(state)
        self.call_start = time.monotonic()
        return is_over

    def step(self, state: TrainingState) -> None:
        """Write a checkpoint if the last one is old enough."""
        if time.monotonic() - self.last_write >= self.seconds:
            self._write(state, is_over=False)

    def leave(self, state: TrainingState) -> None:
        """Write what the call ended with, in place of all of it but the checkpoint before."""
        self._write(state, is_over=True)

    def _restore(self, state: TrainingState) -> bool:
        """Take the newest whole checkpoint of this call; return whether the call had ended."""
        files = list(self._files())
        while files:
            file = files.pop()
            if not file.is_whole:
                remedy = f"'{self.call['phase']}' begins anew"
                if files:
                    remedy = "the one before it is used"
                self.say(f"checkpoint '{file.path}' is damaged; {remedy}")
                continue
            values, tensors = self._read(file.path)
            if values["call"] != self.call:
                raise RunError(
                    f"'{file.path}': is a checkpoint of '{values['call']['phase']}', where "
                    f"'{self.call['phase']}' comes next; begin anew"
                )
            state.restore(values["state"], tensors)
            if file.step != END:
                self.say(f"goes on with '{self.call['phase']}' after step {state.step}")
            return file.step == END
        return False

    def _require_room(self, state: TrainingState) -> None:
        """Raise RunError unless the disk has room for the rolling pair, and a new one beside it."""
        # Without a time there is but one file of a call, with what it ended with.
        if not first_process() or self.seconds == math.inf:
            return
        present = sum(file.path.stat().st_size for file in self._files())
        require_room(self.folder.parent, (ROLLING + 1) * state.snapshot_bytes - present)

    def _files(self) -> Iterator[CheckpointFile]:
        for file in CheckpointFile.all_in(self.folder):
            if file.call == self.calls:
                yield file

    def _write(self, state: TrainingState, *, is_over: bool) -> None:
        if not first_process():
            return
        now = time.monotonic()
        values, tensors = state.snapshot(is_over=is_over)
        # A call that ended has added its seconds up; one under way has not.
        values["trace"]["seconds"] = state.trace.earlier_seconds + now - self.call_start
        values = {"call": self.call, "state": values}
        tensors[POSITION] = _as_tensor(values)
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700)
            sync_folder(self.folder.parent)
        step = END if is_over else f"{state.step:09d}"
        aside = self.folder / f"{self.calls:04d}{ASIDE}"
        if self.key is None:
            save_file(tensors, aside)
        else:
            write_sealed(aside, save(tensors), self.key)
        sync_file(aside)
        aside.rename(self.folder / f"{self.calls:04d}-{step}-{hash_file(aside)}{SUFFIX}")
        sync_folder(self.folder)
        self._remove_old()
        # Counted from here, so that training goes on for a while however slow the disk is.
        self.last_write = time.monotonic()

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """The values and the tensors of a checkpoint that is whole."""
        try:
            if self.key is None:
                tensors = load_file(path)
            else:
                tensors = load(read_sealed(path, self.key))
            values = json.loads(bytes(tensors.pop(POSITION).numpy()))
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise RunError(
                f"'{path}': is no checkpoint, or one of another key; name that key, or remove it"
            ) from error
        return values, tensors

    def _remove_old(self) -> None:
        """Leave the rolling pair of this call, and what each earlier one ended with."""
        own = list(self._files())
        earlier = [file for file in CheckpointFile.all_in(self.folder) if file.call < self.calls]
        superseded = own[:-ROLLING] + [file for file in earlier if file.step != END]
        for file in superseded:
            file.path.unlink()


def clear_unfinished(folder: Path) -> None:
    """Remove from `folder` what a process that was killed had not written to its end."""
    for path in folder.glob(f"*{ASIDE}"):
        path.unlink()


def _as_tensor(values: dict[str, Any]) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)
