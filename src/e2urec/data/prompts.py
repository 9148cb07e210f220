"""Prompts: what a sample looks like to a language model. Text is made when it is asked for and never kept."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ..core.errors import DataError
from .interactions import Interactions
from .samples import Samples


@dataclass(frozen=True)
class Shown:
    """All that a template may show of one sample: never the target's rating, never a later row.

    Attributes:
        profile: the user's attributes that are known.
        titles: of the history, oldest first, each with its details in brackets.
        ratings, liked: of the history.
        target: title of the item in question, with its details.
        codes: item codes of the history and, last, of the target.
    """

    profile: dict[str, str]
    titles: list[str]
    ratings: list[float]
    liked: list[bool]
    target: str
    codes: list[int]


@dataclass(frozen=True)
class Catalogue:
    """Text of users and items, one line each, by their codes.

    Attributes:
        profiles: what is known of each user.
        titles: of each item.
        details: what is known of each item beyond its title.
    """

    profiles: list[dict[str, str]]
    titles: list[str]
    details: list[dict[str, str]]

    @classmethod
    def of(cls, data: Interactions) -> "Catalogue":
        """The text of `data`."""
        return cls(
            _facts(data.profiles), [_one_line(title) for title in data.titles], _facts(data.details)
        )

    def label(self, item: int) -> str:
        """`Title`, or `Title (author A, genre G)`."""
        told = (
            ", ".join(f"{key} {value}" for key, value in self.details[item].items())
            if self.details
            else ""
        )
        return f"{self.titles[item]} ({told})" if told else self.titles[item]


class PromptTemplate(ABC):
    """Turns samples into text that ends where the answer *Yes* or *No* begins."""

    name: str
    source: str | None = None
    """Text of a template that is no class of its own: kept with a model, which is worth nothing without."""
    recurs = True
    """Whether pieces are the same in many prompts, so that it pays to keep their tokens."""

    def reading(self, catalogue: Catalogue) -> "PromptTemplate":
        """The template as it reads `catalogue`; raises DataError if it shows what the data do not hold."""
        return self

    @abstractmethod
    def pieces(self, shown: Shown) -> list[str]:
        """The prompt of one sample, without space at its end, in pieces that recur: titles, and what is between them.

        A piece ends before a space or after a line's end, where tokenizers cut as well; then its tokens are the
        same wherever it stands, and are looked up instead of made again.
        """

    def render(self, samples: Samples) -> list[str]:
        """The prompts of `samples`, one each, in their order."""
        return ["".join(pieces) for pieces in self.cut(samples)]

    def cut(self, samples: Samples) -> Iterator[list[str]]:
        """The same in pieces."""
        data, catalogue = samples.interactions, Catalogue.of(samples.interactions)
        template = self.reading(catalogue)
        titles = [catalogue.label(item) for item in range(len(catalogue.titles))]
        for n, row in enumerate(samples.rows):
            past = samples.past(n)
            codes = [*data.item[past].tolist(), int(data.item[row])]
            shown = Shown(
                profile=catalogue.profiles[data.user[row]] if catalogue.profiles else {},
                titles=[titles[item] for item in codes[:-1]],
                ratings=data.rating[past].tolist(),
                liked=data.liked[past].astype(bool).tolist(),
                target=titles[codes[-1]],
                codes=codes,
            )
            yield template.pieces(shown)


class Compact(PromptTemplate):
    """Liked and disliked titles, then the question: about half of the published prompt's tokens."""

    name = "compact"

    def pieces(self, shown: Shown) -> list[str]:
        """`Liked: A; B. Disliked: C. Will the user like D?`."""
        liked = [title for title, like in zip(shown.titles, shown.liked, strict=True) if like]
        others = [title for title, like in zip(shown.titles, shown.liked, strict=True) if not like]
        return [
            "Liked:",
            *self._listed(liked),
            " Disliked:",
            *self._listed(others),
            " Will the user like",
            f" {shown.target}?",
        ]

    @staticmethod
    def _listed(titles: list[str]) -> list[str]:
        *others, last = titles or ["none"]
        return [*(f" {title};" for title in others), f" {last}."]


class Paper(PromptTemplate):
    """The fields of the published prompt in their order: profile, rated history, target, question."""

    name = "paper"

    def pieces(self, shown: Shown) -> list[str]:
        """Profile, numbered history with stars, target, and the question to be answered Yes or No."""
        about = ", ".join(f"{key} {value}" for key, value in shown.profile.items())
        pieces = ["About the user:", f" {about}.\n"] if about else []
        pieces.append(
            "The user has rated these items, oldest first; more stars mean a stronger liking:\n"
        )
        for number, (title, rating) in enumerate(
            zip(shown.titles, shown.ratings, strict=True), start=1
        ):
            pieces += [f"{number}.", f" {title}", f" ({rating:g} stars)\n"]
        return [
            *(pieces if shown.titles else [*pieces, "none\n"]),
            "Judging from these ratings, decide whether the user will like the item",
            f" {shown.target}.\n",
            "Answer with Yes or No only. Will the user like it?",
        ]


TEMPLATES: dict[str, PromptTemplate] = {
    template.name: template for template in (Compact(), Paper())
}


def _facts(table: pl.DataFrame | None) -> list[dict[str, str]]:
    """What is known, a row: column → text in one line."""
    if table is None:
        return []
    return [
        {key: _one_line(value) for key, value in row.items() if value} for row in table.to_dicts()
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def read_prompts(path: Path) -> list[str]:
    """The prompts of a JSON-lines file, each line `{"prompt": "…"}`.

    Raises:
        DataError: the file cannot be read, or a line holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"examples '{path}': cannot be read; give a UTF-8 file of JSON lines"
        ) from error
    prompts = []
    for number, line in enumerate(lines, start=1):
        try:
            prompt = json.loads(line)["prompt"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'examples \'{path}\' line {number}: is no object {{"prompt": "…"}}; correct it'
            ) from error
        prompts.append(str(prompt).rstrip())
    if not prompts:
        raise DataError(f"examples '{path}': holds no lines; give one prompt a line")
    return prompts
