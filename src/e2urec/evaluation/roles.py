"""Which part a model plays in an evaluation.

A role is made once and compared as a value. Nothing parses its text: `key` is for files and JSON,
`title` is for people.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class RoleKind(StrEnum):
    """The parts there are, in the order in which tables list them."""

    # The values are words of the field: they stand in files and in JSON.
    UNTUNED = "untuned"
    ORIGINAL = "original"
    UNLEARNED = "unlearned"
    RETRAINED = "retrained"
    PLACEBO = "placebo"


# An enumeration keeps the order in which its members are written.
ORDER = list(RoleKind)


@dataclass(frozen=True)
class Role:
    """A part, and what tells it from others of its kind.

    Attributes:
        kind: the part.
        name: the method of an unlearned model in a comparison; the kind of a placebo.
        form: how an unlearned model is deployed, where that is not as it came: merged, or int8.
        number: of a retrained model, counted from 1.
    """

    kind: RoleKind
    name: str = ""
    form: str = ""
    number: int = 0

    @property
    def key(self) -> str:
        """One name for files and JSON: `original`, `npo`, `unlearned-int8`, `retrained-1`."""
        if self.number:
            return f"{self.kind}-{self.number}"
        if self.kind is RoleKind.PLACEBO:
            return f"{self.kind}-{self.name}"
        # A method is called by its own name alone: a comparison's cells are named after methods.
        stem = self.name or str(self.kind)
        if self.form:
            return f"{stem}-{self.form}"
        return stem

    @property
    def title(self) -> str:
        """What people call it."""
        # Readers meet the first retrained model most, and most often it is the only one.
        if self.number > 1:
            return f"retrained, seed {self.number}"
        if self.kind is RoleKind.UNTUNED:
            return "before tuning"
        if self.kind is RoleKind.PLACEBO:
            return PLACEBO_TITLES.get(self.name, f"placebo: {self.name}")
        stem = self.name or str(self.kind)
        if not self.form:
            return stem
        return f"{stem}, {FORM_TITLES.get(self.form, self.form)}"

    def as_form(self, form: str) -> "Role":
        """The same model, deployed otherwise."""
        return Role(self.kind, self.name, form, self.number)


PLACEBO_TITLES = {"temperature": "placebo: softened", "retain": "placebo: tuned on D_r"}
FORM_TITLES = {"int8": "in int8"}

UNTUNED = Role(RoleKind.UNTUNED)
"""The language model before any user's data."""
ORIGINAL = Role(RoleKind.ORIGINAL)
"""The recommender that a request is put to."""
UNLEARNED = Role(RoleKind.UNLEARNED)
"""The recommender that has forgotten."""
PLACEBO_TEMPERATURE = Role(RoleKind.PLACEBO, "temperature")
"""Placebo (i): the original, softened."""
PLACEBO_RETAIN = Role(RoleKind.PLACEBO, "retain")
"""Placebo (ii): the original, tuned on D_r for as many steps as the method takes."""


def retrained(number: int) -> Role:
    """The `number`-th retrained model, counted from 1."""
    return Role(RoleKind.RETRAINED, number=number)


def unlearned_by(method: str) -> Role:
    """The model that `method` made in a comparison of several."""
    return Role(RoleKind.UNLEARNED, method)


OURS = unlearned_by("e2urec")
"""The model that the others of a comparison are held against, in pairs."""


def in_order(roles: Iterable[Role]) -> list[Role]:
    """The roles as a table lists them: by part, then by number; else in the order given."""

    placebos = list(PLACEBO_TITLES)

    def place(role: Role) -> tuple[int, int, int]:
        placebo = placebos.index(role.name) if role.name in placebos else 0
        return ORDER.index(role.kind), role.number, placebo

    # Sorting is stable: methods stay in the order in which a comparison names them.
    return sorted(roles, key=place)
