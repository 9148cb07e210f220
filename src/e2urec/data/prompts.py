"""Prompts: what a sample looks like to a language model.

The text of a prompt is made whenever it is needed, and never stored.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ..core.errors import DataError
from .interactions import Interactions
from .json_objects import json_object, require_whole_letters
from .samples import Samples
from .tables import LONGEST_TEXT
from .text_lines import read_lines


@dataclass(frozen=True)
class PromptFields:
    """All that a template may show of one sample: never the target's rating, never a later row.

    Attributes:
        profile: the user's attributes that the data hold.
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
        profiles: attributes of each user.
        titles: of each item.
        details: attributes of each item beyond its title.
    """

    profiles: list[dict[str, str]]
    titles: list[str]
    details: list[dict[str, str]]

    @classmethod
    def of(cls, data: Interactions) -> "Catalogue":
        """The text of `data`."""
        return cls(
            profiles=_attributes(data.profiles),
            titles=[_one_line(title) for title in data.titles],
            details=_attributes(data.details),
        )

    def profile(self, user: int) -> dict[str, str]:
        """The attributes of a user; none if the data set has no profiles."""
        return self.profiles[user] if self.profiles else {}

    def labels(self) -> list[str]:
        """`Title`, or `Title (author A, genre G)`, of each item."""
        if not self.details:
            return self.titles
        labels = []
        for title, details in zip(self.titles, self.details, strict=True):
            label = f"{title} ({_attribute_text(details)})" if details else title
            labels.append(label)
        return labels


class PromptTemplate(ABC):
    """Turns samples into text that ends where the answer *Yes* or *No* begins."""

    name: str
    source: str | None = None
    """Text of a template that is no class of its own.

    It is kept with a model, which is worth nothing without its template.
    """
    recurs = True
    """Whether pieces are the same in many prompts, so that it pays to keep their tokens."""
    verbatim = False
    """Whether prompts come with the data, space at their end included."""
    chat = False
    """Whether a prompt is what a user says in a chat, which the tokenizer knows how to write."""

    def bind(self, catalogue: Catalogue) -> "PromptTemplate":
        """The template for the items and users of `catalogue`.

        Raises:
            DataError: the template shows what the data do not hold.
        """
        return self

    @abstractmethod
    def pieces(self, fields: PromptFields) -> list[str]:
        """The prompt of one sample, without space at its end, in pieces.

        Pieces are what recurs, such as titles, and what stands between them. A piece ends before a
        space or after a line's end, where tokenizers cut as well. Then its tokens are the same
        wherever it stands, and are looked up instead of made again.
        """

    def render(self, samples: Samples) -> list[str]:
        """The prompts of `samples`, one each, in their order."""
        return ["".join(pieces) for pieces in self.pieces_of(samples)]

    def pieces_of(self, samples: Samples) -> Iterator[list[str]]:
        """The same in pieces."""
        data = samples.interactions
        if data.prompts is not None:
            raise DataError(
                f"data.template '{self.name}': the rows bring their own prompts; set "
                "data.template=verbatim"
            )
        catalogue = Catalogue.of(data)
        template = self.bind(catalogue)
        labels = catalogue.labels()
        for n, row in enumerate(samples.rows):
            history = samples.history_rows(n)
            items = data.item[history].tolist()
            liked = data.liked[history].astype(bool)
            target = int(data.item[row])
            fields = PromptFields(
                profile=catalogue.profile(int(data.user[row])),
                titles=[labels[item] for item in items],
                ratings=data.rating[history].tolist(),
                liked=liked.tolist(),
                target=labels[target],
                codes=[*items, target],
            )
            yield template.pieces(fields)


class Compact(PromptTemplate):
    """Liked and disliked titles, then the question: about half of the published prompt's tokens."""

    name = "compact"

    def pieces(self, fields: PromptFields) -> list[str]:
        """`Liked: A; B. Disliked: C. Will the user like D?`."""
        liked: list[str] = []
        disliked: list[str] = []
        for title, is_liked in zip(fields.titles, fields.liked, strict=True):
            titles = liked if is_liked else disliked
            titles.append(title)
        return [
            "Liked:",
            *_sentence(liked),
            " Disliked:",
            *_sentence(disliked),
            " Will the user like",
            f" {fields.target}?",
        ]


class Paper(PromptTemplate):
    """The fields of the published prompt in order: profile, rated history, target, question."""

    name = "paper"

    def pieces(self, fields: PromptFields) -> list[str]:
        """Profile, numbered history with stars, target, and the question: Yes or No."""
        pieces = []
        if fields.profile:
            pieces += ["About the user:", f" {_attribute_text(fields.profile)}.\n"]
        pieces.append(
            "The user has rated these items, oldest first; more stars mean a stronger liking:\n"
        )
        history = zip(fields.titles, fields.ratings, strict=True)
        for number, (title, rating) in enumerate(history, start=1):
            pieces += [f"{number}.", f" {title}", f" ({rating:g} stars)\n"]
        if not fields.titles:
            pieces.append("none\n")
        pieces += [
            "Judging from these ratings, decide whether the user will like the item",
            f" {fields.target}.\n",
            "Answer with Yes or No only. Will the user like it?",
        ]
        return pieces


class Verbatim(PromptTemplate):
    """The prompts that the data bring, letter by letter."""

    name = "verbatim"
    recurs = False
    verbatim = True

    def pieces(self, fields: PromptFields) -> list[str]:
        """Not here: such a prompt is not made of fields."""
        raise NotImplementedError

    def pieces_of(self, samples: Samples) -> Iterator[list[str]]:
        """The whole prompts, each as one piece; raises DataError where the data bring none."""
        prompts = samples.interactions.prompts
        if prompts is None:
            raise DataError(
                f"data.template '{self.name}': the data bring no prompts of their own; name "
                "compact, paper, or a file with .j2"
            )
        for text in prompts.of_rows(samples.rows):
            yield [text]


class Chat(Verbatim):
    """The same, each as what a user says in a chat."""

    name = "chat"
    chat = True


VERBATIM = Verbatim()
CHAT = Chat()
TEMPLATES: dict[str, PromptTemplate] = {
    template.name: template for template in (Compact(), Paper())
}
"""Those that write the prompts of any data."""


def read_prompts(path: Path) -> list[str]:
    """The prompts of a JSON-lines file, each line `{"prompt": "…"}`.

    Raises:
        DataError: the file cannot be read, or a line holds no prompt.
    """
    place = f"examples '{path}'"
    prompts = []
    for number, line in enumerate(read_lines(path, place, "give a file of JSON lines"), start=1):
        # The file's last line may end as all others do, and an editor may have added another.
        if not line.strip():
            continue
        try:
            prompts.append(_prompt(line))
        except ValueError as error:
            raise DataError(f"{place} line {number}: {error}") from error
    if not prompts:
        raise DataError(f"{place}: holds no lines; give one prompt a line")
    return prompts


def _prompt(line: str) -> str:
    """The prompt of a line; raises ValueError with what is wrong with the line."""
    prompt = json_object(line).get("prompt")
    if not isinstance(prompt, str):
        raise ValueError('is no object {"prompt": "…"}; correct it')
    require_whole_letters([prompt])
    require_prompt(prompt)
    return prompt


def require_prompt(text: str) -> None:
    """Raise ValueError for a prompt that is empty, or longer than any model reads."""
    if not text.strip():
        raise ValueError("holds an empty prompt; fill it in or remove the line")
    if len(text) > LONGEST_TEXT:
        raise ValueError(
            f"holds a prompt of {len(text):,} letters, and the longest may have "
            f"{LONGEST_TEXT:,}; shorten it"
        )


def _sentence(titles: list[str]) -> list[str]:
    """` A;`, ` B.`, or ` none.`, as pieces."""
    if not titles:
        return [" none."]
    pieces = [f" {title};" for title in titles[:-1]]
    pieces.append(f" {titles[-1]}.")
    return pieces


def _attribute_text(attributes: dict[str, str]) -> str:
    parts = [f"{key} {value}" for key, value in attributes.items()]
    return ", ".join(parts)


def _attributes(table: pl.DataFrame | None) -> list[dict[str, str]]:
    """Column → text in one line, of each row; empty cells are left out."""
    if table is None:
        return []
    rows = []
    for row in table.to_dicts():
        rows.append({key: _one_line(value) for key, value in row.items() if value})
    return rows


def _one_line(text: str) -> str:
    words = text.split()
    return " ".join(words)
