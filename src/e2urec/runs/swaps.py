"""Records of swaps: what a server served before and after a run's adapter went live.

No prompt and no user's id stands in them, and no key.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..core.durable import make_folders
from ..core.reading import UNREADABLE, damaged, read_object
from .files import finite, write_json
from .folder import Run
from .record_mac import FIELD, MacRecord, MacState, mac_of, mac_state

FOLDER = "swaps"
"""In the run; see `record.ADDITIONS`."""
REMEDY = "restore it, or remove it"
STATES = {
    MacState.HOLDS: "the record is as it was written under this controller key",
    MacState.CHANGED: "the record was changed since it was written under this controller key",
    MacState.OTHER_KEY: "the record has a MAC under another controller key",
    MacState.NO_KEY: "the record has a MAC, and no controller key is at hand to check it",
    MacState.NONE: "the record has no MAC: anyone could have written it",
}

PrefixCache = Literal["reset", "unconfirmed", "off", "not offered"]


class ServedRecord(BaseModel):
    """A model on a server's list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    root: str = Field(description="folder or name it was loaded from, as the server sees it")


class SwapRecord(BaseModel):
    """A swap, as it was found to be when it was done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: str = Field(description="when it was done, UTC")
    server: str
    server_version: str | None = None
    run_sha256: str = Field(description="of the run's run.json")
    adapter: str = Field(description="its name on the server, made from its hash")
    adapter_sha256: str
    alias: str | None = Field(None, description="the name that clients ask for, now this adapter")
    old_adapters: tuple[str, ...] = Field((), description="names of adapters that were unloaded")
    rows: int = Field(description="test rows that the server was asked about")
    largest_difference: float = Field(description="of log-probabilities of the answers, in nats")
    tolerance: float
    old_difference: float | None = Field(
        None, description="the same of the adapter that went; none: it did not answer"
    )
    seconds_without_alias: float | None = Field(
        None, description="for so long the alias was answered by nothing"
    )
    prefix_cache: PrefixCache
    before: tuple[ServedRecord, ...]
    after: tuple[ServedRecord, ...]
    mac: MacRecord | None = Field(None, description="of all other fields, under a key")

    def sentence(self) -> str:
        """What a user reads of it."""
        # By now it may serve another: a record is of its time.
        names = " and ".join(f"'{name}'" for name in (self.alias, self.adapter) if name)
        text = f"{self.server} served it as {names} at {self.time}"
        if self.old_adapters:
            text += f", in place of {', '.join(self.old_adapters)}"
        return text


def make_swaps_folder(run: Run) -> bool:
    """Make the folder of a run's swaps, where it is missing; whether it was.

    Raises:
        OSError: it cannot be made, or not be written to.
    """
    folder = run.path / FOLDER
    is_new = not folder.exists()
    make_folders(folder)
    # Told by writing: permissions alone do not tell of a full or read-only disk.
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\n")
    return is_new


def write_swap(run: Run, record: SwapRecord, key: bytes | None) -> Path:
    """Add the record of a swap to its run, whose folder of swaps is there; returns the file.

    Args:
        run: whose adapter it is.
        record: without a MAC.
        key: the controller's, for a MAC; None: the record gets none.
    """
    values = finite(record.model_dump(mode="json", exclude_none=True))
    # What could not be read again shall not be written.
    SwapRecord.model_validate(values)
    if key is not None:
        values[FIELD] = mac_of(values, key).model_dump(mode="json")
    folder = run.path / FOLDER
    # Colons are no part of a file's name on Windows.
    file = folder / f"{record.time.replace(':', '')}-{record.adapter}.json"
    write_json(file, values)
    return file


def swap_sentences(run: Run, key: bytes | None) -> Iterator[str]:
    """The swaps of a run, oldest first, and what the MAC of each says under the key.

    Raises:
        RunError: a record is damaged.
    """
    run_sha256 = run.sha256
    for file, record, state in _records(run, key):
        if record.run_sha256 != run_sha256:
            yield f"'{file}': is the record of another run's swap, and says nothing of this one"
        else:
            yield f"{record.sentence()}; {STATES[state]}"


def last_swap(run: Run, server: str, key: bytes) -> SwapRecord | None:
    """The last swap of a run on a server that a record with a MAC shows; None: there is none.

    Raises:
        RunError: a record is damaged.
    """
    run_sha256 = run.sha256
    last = None
    for _, record, state in _records(run, key):
        is_of_run = record.run_sha256 == run_sha256 and state is MacState.HOLDS
        if is_of_run and record.server == server:
            last = record
    return last


def _records(run: Run, key: bytes | None) -> Iterator[tuple[Path, SwapRecord, MacState]]:
    """The records of a run, oldest first, and what their MACs say."""
    for file in sorted((run.path / FOLDER).glob("*.json")):
        values = read_object(file, REMEDY)
        try:
            record = SwapRecord.model_validate(values)
        except UNREADABLE as error:
            raise damaged(file, REMEDY, error) from error
        yield file, record, mac_state(values, key)
