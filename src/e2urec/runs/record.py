"""What a run folder says of itself in `run.json`: from what it was made, by what, and its files.

No user id stands in it. Even a hash of an id would be soon guessed, since ids are few and short.
"""

import math
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..core.contents import RESTORE, FileRecord, record_files
from ..core.errors import RunError
from ..core.reading import UNREADABLE, damaged, read_object
from ..metrics.bootstrap import Interval
from .files import finite, write_json
from .record_mac import FIELD, MacRecord, MacState, mac_of, mac_state

NAME = "run.json"
RESULTS = "results.json"
CHECKPOINTS = "checkpoints"
"""Folder of what a half-made run goes on from; see `runs.resumption`."""
RESUMPTION = "resumption.json"
"""File that says with which settings it was begun."""
FORMAT = 3
"""Raised whenever a run folder changes so that an older one cannot be read. 1 had no number."""
ADDITIONS = ("rehearsal.json", "shadows", "swaps")
"""What is added to a finished run, with hashes of its own; `run.json` stays as it is."""
LIBRARIES = ("e2urec", "torch", "transformers", "peft", "accelerate", "numpy", "polars")
"""Those whose version can change a result."""

RunKind = Literal["original", "unlearned", "comparison", "demo"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodRecord(_Part):
    """The method that made an unlearned run, with all its settings."""

    name: str
    settings: dict[str, Any]


class ParentRecord(_Part):
    """The run that a request was put to: its folder, and the SHA-256 of its `run.json`."""

    path: str
    sha256: str


class BaseRecord(_Part):
    """The language model that a run was made from, by content."""

    name: str = Field(description="packaged name, Hugging Face name or folder")
    revision: str | None = Field(None, description="commit on the hub; None: not from there")
    files: dict[str, str] = Field(description="SHA-256 of its weights, settings and tokenizer")


class IntervalRecord(_Part):
    """A figure with its interval; None stands for what JSON cannot hold: no value, no limit."""

    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, figure: Interval) -> "IntervalRecord":
        """The record of a figure."""
        return cls.model_validate(finite(figure.as_dict()))

    @property
    def interval(self) -> Interval:
        """The figure again."""
        value = math.nan if self.value is None else self.value
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return Interval(value, low, high, self.n)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.interval.value:.3f}, not bounded"
        return f"{self.interval.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class CitationRecord(_Part):
    """What a run says of the rehearsal of its method and settings on the original it is from."""

    sha256: str = Field(description="of the rehearsal's file")
    unit: str
    size: int
    times: int
    chosen: bool = Field(description="whether the rehearsal chose these settings")
    memory: IntervalRecord | None = Field(None, description="pooled M_auc, 95%")

    @property
    def requests(self) -> str:
        """They in words."""
        return requests_text(self.times, self.size, self.unit)

    def sentence(self) -> str:
        """What a user reads of it."""
        # It may have chosen others, or none.
        settings = "settings chosen by" if self.chosen else "settings tried, and not chosen, in"
        memory = "not known" if self.memory is None else str(self.memory)
        return (
            f"{settings} the rehearsal of {self.requests} on the original, pooled M_auc {memory}; "
            "the unlearned run is another model, and carries no rehearsal"
        )


class RunRecord(_Part):
    """`run.json`."""

    kind: RunKind
    recipe: dict[str, Any] = Field(description="all settings, as resolved")
    seed: int
    format: int = FORMAT
    seconds: dict[str, float] = Field(default_factory=dict, description="by phase")
    rows: dict[str, int] = Field(
        default_factory=dict, description="rows tuned on, dropped, and scored"
    )
    seconds_per_row: float | None = Field(None, description="of the original's training")
    method: MethodRecord | None = None
    parent: ParentRecord | None = None
    rehearsal: CitationRecord | None = None
    note: str | None = Field(
        None, description="after a request for no training row: that the model is unchanged"
    )
    request_hmac: str | None = Field(None, description="the request, under the controller's key")
    chain: tuple[str, ...] = Field((), description="the same of this request and all before it")
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, FileRecord] = Field(default_factory=dict)
    prepared_from: ParentRecord | None = Field(None, description="the run that prepare copied")
    base: BaseRecord | None = Field(None, description="the language model before any user's data")
    mac: MacRecord | None = Field(None, description="of all other fields, under a key")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files.values())


def requests_text(times: int, size: int, unit: str) -> str:
    """`20 requests of 1 user each`."""
    things = unit.removesuffix("s") if size == 1 else unit
    requests = "1 request" if times == 1 else f"{times} requests"
    return f"{requests} of {size} {things} each"


def write_record(folder: Path, record: RunRecord, key: bytes | None = None) -> None:
    """Write `run.json`: the record, the versions at work, and size and hash of every file.

    Args:
        folder: of the run, which holds all its files by now.
        record: what it says.
        key: the controller's, for a MAC of all that; None: the record gets none.
    """
    files = record_files(folder, apart=(CHECKPOINTS, RESUMPTION))
    complete = record.model_copy(update={"versions": versions(), "files": files, "mac": None})
    values = finite(complete.model_dump(mode="json", exclude_none=True))
    if key is not None:
        values[FIELD] = mac_of(values, key).model_dump(mode="json")
    write_json(folder / NAME, values)


def read_record(folder: Path, key: bytes | None = None) -> RunRecord:
    """The record of a run folder.

    Args:
        folder: of the run.
        key: the controller's; None: a MAC is not checked.

    Raises:
        RunError: there is none, it is damaged, an older version of e2urec wrote it, or it has a MAC
            under `key` that does not hold.
    """
    path = folder / NAME
    if not path.exists():
        raise RunError(f"'{folder}': is no run folder (it has no {NAME}); name one made by e2urec")
    # Asked before it is read: a link may lead to other content at the next reading.
    if path.is_symlink():
        raise RunError(f"'{path}': is a link; put the file itself there, or {RESTORE}")
    values = read_object(path, RESTORE)
    # Asked first: a record of another format may well fail every other check.
    made_by = values.get("format", 1)
    if made_by != FORMAT:
        raise RunError(
            f"'{folder}': was made by another version of e2urec (format {made_by}, not {FORMAT}); "
            "make it again with this version"
        )
    if mac_state(values, key) is MacState.CHANGED:
        raise RunError(
            f"'{path}': was changed since it was written under this controller key; {RESTORE}"
        )
    try:
        return RunRecord.model_validate(values)
    except UNREADABLE as error:
        raise damaged(path, RESTORE) from error


def is_vouched(folder: Path, record: RunRecord, key: bytes) -> bool:
    """Whether a record that was read from `folder` is as the holder of the key wrote it.

    What is made from any other gets no MAC: it would vouch for what nobody vouched for.
    """
    values = read_object(folder / NAME, RESTORE)
    if mac_state(values, key) is not MacState.HOLDS:
        return False
    # Read again, so it may be another by now.
    return RunRecord.model_validate(values) == record


def record_state(folder: Path, key: bytes | None) -> MacState:
    """What the MAC of a record says under the controller's key; raises RunError if damaged."""
    return mac_state(read_object(folder / NAME, RESTORE), key)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a result."""
    libraries = {name: metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version()} | libraries
