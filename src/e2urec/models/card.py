"""What a folder says of a recommender beside its weights: `recommender.json`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import RunError
from ..core.reading import damaged, read_object
from .verbaliser import Verbaliser

FILE = "recommender.json"
REMEDY = "name a folder made by e2urec train"
REQUIRED = {"template": str, "window": int, "base": str}
OPTIONAL = {"template_source": str, "answers": list, "dtype": str}


@dataclass(frozen=True)
class Card:
    """What a recommender is beside its weights.

    Attributes:
        template: name of its prompt template.
        window: longest prompt in tokens.
        base: name or folder of the backbone.
        template_source: what the template's file held, where it came from one.
        answers: tokens of liked and not liked of a model made elsewhere; None: Yes and No.
        dtype: precision of the weights of such a model, as they came.
    """

    template: str
    window: int
    base: str
    template_source: str | None = None
    answers: tuple[int, int] | None = None
    dtype: str | None = None

    @property
    def verbaliser(self) -> Verbaliser | None:
        """The tokens of the answers, where the card says them."""
        return None if self.answers is None else Verbaliser(*self.answers)

    def write(self, folder: Path) -> None:
        """Write the card."""
        record = {name: value for name, value in asdict(self).items() if value is not None}
        text = json.dumps(record, indent=2) + "\n"
        (folder / FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Card":
        """The card of a folder.

        Raises:
            RunError: there is no whole one.
        """
        path = folder / FILE
        if not path.is_file():
            raise RunError(f"'{folder}': holds no recommender; {REMEDY}")
        values = read_object(path, REMEDY)
        if not _is_card(values):
            raise damaged(path, REMEDY)
        fields = {name: values[name] for name in (*REQUIRED, *OPTIONAL) if name in values}
        if fields.get("answers") is not None:
            fields["answers"] = tuple(fields["answers"])
        return cls(**fields)


def _is_card(values: dict[str, Any]) -> bool:
    for name, kind in REQUIRED.items():
        if not isinstance(values.get(name), kind):
            return False
    for name, kind in OPTIONAL.items():
        if not isinstance(values.get(name), kind | None):
            return False
    answers = values.get("answers")
    # By type, since true and false count as integers.
    return answers is None or [type(token) for token in answers] == [int, int]
