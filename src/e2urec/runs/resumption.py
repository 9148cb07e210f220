"""How a command that makes a run goes on after it was killed: its checkpoints, and whose they are.

They stand in the partial folder, which is private to its owner, and go before it becomes the run.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.durable import remove_tree, sync_tree
from ..core.errors import ConfigError, RunError
from ..core.process import first_process, uninterrupted
from ..core.say import Say, no_words
from ..training.checkpoints import NO_CHECKPOINTS, CheckpointFolder, Checkpoints, clear_unfinished
from .files import write_json
from .folder import PARTIAL, create_run, partial_of
from .keys import derived_key, settings_digest
from .record import CHECKPOINTS, NAME, RESUMPTION

NEEDED = (CHECKPOINTS, RESUMPTION)
"""All that going on needs of a partial folder."""


@dataclass(frozen=True)
class CheckpointOptions:
    """Whether a command can go on after it was killed, and whether it goes on now.

    Attributes:
        minutes: from one checkpoint to the next. None: there are none, or, with `resume`, as many
            as it was begun with; 0: as None.
        resume: whether to go on with what the same command left half-made.
        say: told where it goes on.
    """

    minutes: float | None = None
    resume: bool = False
    say: Say = no_words

    def __post_init__(self) -> None:
        """Raise ConfigError where the minutes are no time."""
        if self.minutes is not None and not 0 <= self.minutes < math.inf:
            raise ConfigError(f"--checkpoint-every {self.minutes:g}: give minutes, from 0 on")

    @property
    def is_on(self) -> bool:
        """Whether there are checkpoints, or may be."""
        return bool(self.minutes) or self.resume

    def begin(
        self, out: Path, settings: Mapping[str, Any], key: bytes, *, sealed: bool = False
    ) -> Checkpoints:
        """The checkpoints of the run that is being made in the partial folder of `out`.

        What an earlier process left there besides them is removed.

        Args:
            out: the run folder to make.
            settings: all that the result depends on, besides the versions at work.
            key: the controller's, under which it is noted what the settings are.
            sealed: whether checkpoints are encrypted under a key made from it, as they must be
                where there is a request.

        Raises:
            RunError: there are checkpoints of a command with other settings.
        """
        partial = partial_of(out)
        folder = partial / CHECKPOINTS
        sealing_key = _sealing_key(key) if sealed else None
        # Of several processes the first one writes, so the others need not know how often.
        if not first_process():
            return CheckpointFolder(folder, math.inf, key=sealing_key)
        minutes = self.minutes or 0
        digest = settings_digest(settings, key)
        left = _read(partial / RESUMPTION)
        _clear(partial)
        # What was begun without any checkpoint is begun anew: whoever began it loses nothing.
        if folder.is_dir():
            if left.get("settings") != digest:
                raise RunError(
                    f"'{partial}': was begun with other settings, data, key or versions of "
                    "libraries; go on with those"
                )
            minutes = minutes or left["minutes"]
        elif self.resume:
            self.say(f"'{partial}' has no checkpoint to go on from; it begins at the start")
        write_json(partial / RESUMPTION, {"minutes": minutes, "settings": digest})
        return CheckpointFolder(folder, _seconds(minutes), self.say, sealing_key)

    def within(self, folder: Path, key: bytes) -> Checkpoints:
        """The checkpoints of a command that knows by itself whether `folder` is its own.

        It goes on with what is there, whatever `resume` says.

        Args:
            folder: in which they stand in a folder of their own.
            key: the controller's; they are encrypted under one made from it.
        """
        place = folder / CHECKPOINTS
        clear_unfinished(place)
        if not self.minutes and not place.is_dir():
            return NO_CHECKPOINTS
        return CheckpointFolder(place, _seconds(self.minutes), self.say, _sealing_key(key))


NEVER = CheckpointOptions()


@contextlib.contextmanager
def resumable_run(out: Path, options: CheckpointOptions) -> Iterator[Path]:
    """Yield the folder to work in, as `create_run` does; with checkpoints it survives an interrupt.

    Raises:
        RunError: as `create_run` does, or there is something else to go on with.
    """
    if not options.is_on:
        with create_run(out) as partial:
            yield partial
        return
    accept = _refuse_what_is_of_others if options.resume else None
    with create_run(out, keep=CHECKPOINTS, accept=accept) as partial:
        try:
            yield partial
        except BaseException:
            if first_process():
                _clear(partial)
            raise
        if first_process():
            _remove_checkpoints(partial)


def _remove_checkpoints(partial: Path) -> None:
    """Remove from the partial folder of a finished run what it went on from."""
    # Synced first: a power cut would else take what they could make again.
    sync_tree(partial)
    with uninterrupted():
        remove_tree(partial / CHECKPOINTS)
        # Last: as long as it is there, a run that was killed meanwhile can be made again.
        (partial / RESUMPTION).unlink(missing_ok=True)


def _refuse_what_is_of_others(partial: Path) -> None:
    """Raise RunError where a partial folder holds what no command with checkpoints made."""
    names = {path.name for path in partial.iterdir()}
    # Without any, it was killed before it was noted whose they are, or half-way in that; with a
    # record, after the note was removed.
    is_own = any(name == NAME or name.startswith(RESUMPTION) for name in names)
    if names and not is_own:
        out = partial.with_name(partial.name.removesuffix(PARTIAL))
        raise RunError(
            f"'{partial}': was begun without checkpoints; remove it with: e2urec discard {out}"
        )


def _clear(partial: Path) -> None:
    """Remove from a partial folder all that going on does not need."""
    for path in partial.iterdir():
        if path.name in NEEDED:
            continue
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink()
    clear_unfinished(partial / CHECKPOINTS)


def _read(path: Path) -> dict[str, Any]:
    """What is noted of a run that goes on; nothing where that cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _sealing_key(key: bytes) -> bytes:
    return derived_key(key, b"e2urec checkpoints")


def _seconds(minutes: float | None) -> float:
    return 60 * minutes if minutes else math.inf
