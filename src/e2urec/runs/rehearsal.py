"""A rehearsal, kept in the run whose model it was made with: figures and settings, and nobody's.

`run.json` stays as it is, since runs made from this one go by its hash. So the file names that hash
in turn, and holds one of itself, and a MAC as `run.json` does: a gate goes by these figures.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..core.contents import hash_file
from ..core.errors import RunError
from ..core.reading import UNREADABLE, damaged, read_object
from ..data.requests import Unit
from .files import finite, write_json
from .folder import Run
from .record import CitationRecord, IntervalRecord, requests_text
from .record_mac import FIELD, MacState, mac_of, mac_state

FILE = "rehearsal.json"
MEMORY = "memory_auc"
REMEDY = "rehearse again, or restore it from a backup"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RehearsedTrial(_Part):
    """Settings of the method, and how they did on all requests together."""

    settings: dict[str, Any] = Field(description="all of the method's")
    figures: dict[str, IntervalRecord] = Field(description="pooled, 95%")
    gate: IntervalRecord | None = Field(None, description="pooled M_auc, 90%: what a gate asks")
    seconds: float = Field(description="of a request, the median")


class Rehearsal(_Part):
    """`rehearsal.json`."""

    run: str = Field(description="SHA-256 of the run.json of the run it belongs to")
    method: str
    unit: Unit
    size: int = Field(description="of a request")
    times: int = Field(description="requests")
    users: int = Field(description="of all requests")
    rows: int = Field(description="of D_f, of all requests")
    seed: int = Field(description="that drew the users")
    retrained: int = Field(description="models retrained without all of these users")
    retraining_seconds: float = Field(description="of one of them, the mean")
    headroom: IntervalRecord | None = Field(None, description="what there was to forget, in AUC")
    attack: IntervalRecord | None = Field(
        None, description="AUC of an attack on the original beyond a retrained model, 95%"
    )
    tolerance: float = Field(description="test AUC that a chosen setting may lose to retraining")
    trials: tuple[RehearsedTrial, ...]
    chosen: int | None = Field(None, description="place of the trial that was chosen, from 0")
    versions: dict[str, str]

    @property
    def requests(self) -> str:
        """What was rehearsed, in words."""
        return requests_text(self.times, self.size, self.unit)

    def sentence(self) -> str:
        """What a user reads of it."""
        text = f"rehearsed {self.method} by {self.requests}"
        if self.chosen is None:
            return f"{text}; no settings were chosen"
        return f"{text}; unlearn takes the settings that were chosen, where none are set"

    def find(self, method: str, settings: dict[str, Any]) -> int | None:
        """The place of the trial of a method as it is set; None: it was not rehearsed so."""
        if method != self.method:
            return None
        for place, trial in enumerate(self.trials):
            if trial.settings == settings:
                return place
        return None

    def cite(self, place: int, sha256: str) -> CitationRecord:
        """What a run made with the settings of a trial says of it."""
        return CitationRecord(
            sha256=sha256,
            unit=self.unit,
            size=self.size,
            times=self.times,
            chosen=place == self.chosen,
            memory=self.trials[place].figures.get(MEMORY),
        )

    def save(self, run: Run, scratch: Path, key: bytes) -> None:
        """Write it into the run, in place of an older one.

        Args:
            run: that was rehearsed on.
            scratch: folder for the half-written file, of which a kill leaves nothing in the run.
            key: the controller's, for the MAC.
        """
        values = finite(self.model_dump(mode="json"))
        values |= {"check": _digest(values)}
        values |= {FIELD: mac_of(values, key).model_dump(mode="json")}
        write_json(run.path / FILE, values, scratch=scratch)


def read_rehearsal(run: Run, key: bytes | None = None) -> Rehearsal | None:
    """The rehearsal of a run; None where there was none.

    Args:
        run: that was rehearsed on.
        key: the controller's; None: the MAC is not checked.

    Raises:
        RunError: it is damaged, another run's, or it has no MAC that holds under `key`.
    """
    path = run.path / FILE
    # A folder or a link of that name is no rehearsal, and must not pass for none.
    if not path.exists() and not path.is_symlink():
        return None
    values = read_object(path, REMEDY)
    state = mac_state(values, key)
    values.pop(FIELD, None)
    check = values.pop("check", None)
    try:
        rehearsal = Rehearsal.model_validate(values)
    except UNREADABLE as error:
        raise damaged(path, REMEDY) from error
    if check != _digest(values):
        raise damaged(path, REMEDY)
    # Every rehearsal is written under a key, so one without a MAC was changed as well.
    if key is not None and state is not MacState.HOLDS:
        raise RunError(f"'{path}': is not as it was written under this controller key; {REMEDY}")
    # A copy of another run's would speak for a model that nobody rehearsed with.
    if rehearsal.run != run.sha256:
        raise RunError(f"'{path}': is of another run; remove it, or rehearse again")
    return rehearsal


def citation_of(
    run: Run, method: str, settings: dict[str, Any], key: bytes
) -> CitationRecord | None:
    """What the rehearsal of a run says of a method as it is set; None if it does not."""
    rehearsal = read_rehearsal(run, key)
    if rehearsal is None:
        return None
    place = rehearsal.find(method, settings)
    if place is None:
        return None
    return rehearsal.cite(place, hash_file(run.path / FILE))


def _digest(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
