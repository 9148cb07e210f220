"""How a command that makes a run goes on after it was killed: its checkpoints, and whose they are.

They stand in the partial folder, which is private to its owner, and go before it becomes the run.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from ..core.contents import check_files
from ..core.derived_keys import derived_key
from ..core.durable import remove_tree
from ..core.errors import ConfigError, RunError
from ..core.launch import wait_for_all
from ..core.process import first_process
from ..core.reading import UNREADABLE, damaged
from ..core.say import Say, no_words
from ..training.checkpoints import NO_CHECKPOINTS, CheckpointFolder, Checkpoints, clear_unfinished
from .files import finite, write_json
from .folder import UnnamedRunError, create_run, is_finished, out_of, partial_of
from .keys import settings_digest
from .record import CHECKPOINTS, NAME, RESUMPTION, RunRecord, read_record

NEEDED = (CHECKPOINTS, RESUMPTION)
"""All that going on needs of a partial folder."""


class _Note(BaseModel):
    """`resumption.json`: with what a half-made run was begun."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    minutes: float = Field(ge=0)
    settings: str

    @classmethod
    def of(cls, partial: Path) -> Self:
        """The note in a partial folder; raises RunError where it cannot be read."""
        path = partial / RESUMPTION
        try:
            return cls.model_validate_json(path.read_bytes())
        except UNREADABLE as error:
            remedy = "without it nobody knows whose the checkpoints are: discard them"
            raise damaged(path, remedy, error) from error


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
            RunError: there are checkpoints of a command with other settings, or its finished run;
                or the note that says whose they are is damaged.
        """
        partial = partial_of(out)
        folder = partial / CHECKPOINTS
        sealing_key = _sealing_key(key) if sealed else None
        has_ended = is_finished(partial)
        # All look before the first one changes anything: they leave the block together.
        wait_for_all()
        if has_ended:
            if first_process():
                self._accept_finished(partial, settings, key)
            raise _HasEndedError
        # Of several processes the first one writes, so the others need not know how often.
        if not first_process():
            return CheckpointFolder(folder, math.inf, key=sealing_key)
        minutes = self.minutes or 0
        digest = settings_digest(settings, key)
        _clear(partial)
        # What was begun without any checkpoint is begun anew: whoever began it loses nothing.
        if folder.is_dir():
            note = _Note.of(partial)
            if note.settings != digest:
                raise _other_settings(partial)
            minutes = minutes or note.minutes
        elif self.resume:
            self.say(f"'{partial}' has no checkpoint to go on from; it begins at the start")
        note = _Note(minutes=minutes, settings=digest)
        write_json(partial / RESUMPTION, note.model_dump())
        return CheckpointFolder(folder, _seconds(minutes), self.say, sealing_key)

    def _accept_finished(
        self, partial: Path, settings: Mapping[str, Any], key: bytes | None
    ) -> None:
        """Raise RunError unless a run that lacks its name alone is whole, and of these settings."""
        record = read_record(partial, key)
        check_files(partial, record.files, apart=(NAME, CHECKPOINTS))
        # No record tells a demo's request, and no file all that its command prints.
        if record.kind not in ("original", "unlearned"):
            out = out_of(partial)
            remove_tree(partial / CHECKPOINTS)
            raise UnnamedRunError(
                f"'{partial}': is finished; give it its name with: mv {partial} {out}"
            )
        recorded = _recorded_settings(record)
        if recorded != {name: finite(settings.get(name)) for name in recorded}:
            raise _other_settings(partial)
        self.say(f"'{partial}' is finished, and gets its name")

    def within(self, folder: Path, key: bytes) -> Checkpoints:
        """The checkpoints of a command that knows by itself whether `folder` is its own.

        It goes on with what is there, whatever `resume` says.

        Args:
            folder: in which they stand in a folder of their own.
            key: the controller's; they are encrypted under one made from it.
        """
        place = folder / CHECKPOINTS
        if first_process():
            clear_unfinished(place)
        # All look before the first one writes, so that all decide alike.
        wait_for_all()
        if not self.minutes and not place.is_dir():
            return NO_CHECKPOINTS
        return CheckpointFolder(place, _seconds(self.minutes), self.say, _sealing_key(key))


NEVER = CheckpointOptions()


class _HasEndedError(Exception):
    """The block of a command is left at once: its run lacks nothing but its name."""


@contextlib.contextmanager
def resumable_run(out: Path, options: CheckpointOptions) -> Iterator[Path]:
    """Yield the folder to work in, as `create_run` does; with checkpoints it survives an interrupt.

    A run that was killed when it lacked its name alone gets that where the block calls
    `options.begin`, which ends the block.

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
        except _HasEndedError:
            # All that is left to do is what happens to every block that ends well.
            return
        except BaseException:
            if first_process() and not is_finished(partial):
                _clear(partial)
            raise


def _refuse_what_is_of_others(partial: Path) -> None:
    """Raise RunError where a partial folder holds what no command with checkpoints made."""
    names = {path.name for path in partial.iterdir()}
    # Without any, it was killed before it was noted whose they are, or half-way in that; with a
    # record, after the note was removed.
    is_own = any(name == NAME or name.startswith(RESUMPTION) for name in names)
    if names and not is_own:
        out = out_of(partial)
        raise RunError(
            f"'{partial}': was begun without checkpoints; remove it with: e2urec discard {out}"
        )


def _other_settings(partial: Path) -> RunError:
    return RunError(
        f"'{partial}': was begun with other settings, data, key or versions of libraries; go on "
        "with those"
    )


def _recorded_settings(record: RunRecord) -> dict[str, Any]:
    """Of the settings that `begin` is given, all that a record tells."""
    method = record.method
    parent = record.parent
    return {
        "recipe": record.recipe,
        "method": None if method is None else method.name,
        "settings": None if method is None else method.settings,
        "parent": None if parent is None else parent.sha256,
        "request": record.request_hmac,
    }


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


def _sealing_key(key: bytes) -> bytes:
    return derived_key(key, b"e2urec checkpoints")


def _seconds(minutes: float | None) -> float:
    return 60 * minutes if minutes else math.inf
