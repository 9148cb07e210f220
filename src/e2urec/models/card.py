"""What a folder says of a recommender beside its weights: `recommender.json`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..core.errors import RunError
from ..core.reading import damaged, read_object
from .verbaliser import AnswerTokens, Prefix, Verbaliser

FILE = "recommender.json"
REMEDY = "name a folder made by e2urec train"
REQUIRED = {"template": str, "window": int, "base": str}
OPTIONAL = {"template_source": str, "answers": list, "prefix": list, "dtype": str}
TOKENS: dict[str, TypeAdapter[Any]] = {
    "answers": TypeAdapter(AnswerTokens | None),
    "prefix": TypeAdapter(Prefix),
}
"""What is a list in JSON."""


@dataclass(frozen=True)
class Card:
    """What a recommender is beside its weights.

    Attributes:
        template: name of its prompt template.
        window: longest prompt in tokens.
        base: name or folder of the backbone.
        template_source: what the template's file held, where it came from one.
        answers: tokens of liked and not liked of a model made elsewhere; None: Yes and No.
        prefix: tokens that the decoder of such a model writes before either answer.
        dtype: precision of the weights of such a model, as they came.
    """

    template: str
    window: int
    base: str
    template_source: str | None = None
    answers: AnswerTokens | None = None
    dtype: str | None = None
    prefix: tuple[int, ...] = ()

    @property
    def verbaliser(self) -> Verbaliser | None:
        """The tokens of the answers, where the card says them."""
        return None if self.answers is None else Verbaliser.of(self.answers, self.prefix)

    def write(self, folder: Path) -> None:
        """Write the card."""
        record = {name: value for name, value in asdict(self).items() if value not in (None, ())}
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
        try:
            for name in TOKENS.keys() & fields.keys():
                # Strictly, and from JSON: true is no token, and a list is a tuple.
                text = json.dumps(fields[name])
                fields[name] = TOKENS[name].validate_json(text, strict=True)
        except ValidationError as error:
            raise damaged(path, REMEDY) from error
        return cls(**fields)


def _is_card(values: dict[str, Any]) -> bool:
    for name, kind in REQUIRED.items():
        if not isinstance(values.get(name), kind):
            return False
    return all(isinstance(values.get(name), kind | None) for name, kind in OPTIONAL.items())
