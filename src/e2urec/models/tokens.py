"""Turn samples into rows of tokens. A prompt's text exists only while it is being tokenised."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..core.arrays import Ints
from ..core.seeding import stream
from ..data.prompts import PromptTemplate
from ..data.samples import Samples
from .batches import Examples, pack
from .verbaliser import prompt_ids

# If joined tokens were wrong in one row of a thousand, this many random rows would show it with
# probability 1 − e⁻¹⁰.
CHECK_ROWS = 10_000
"""Number of rows on which joined tokens are compared with the tokens of the whole text."""

# So many prompts are a few megabytes of text, however many rows there are.
CHUNK_ROWS = 4096
"""Number of whole prompts that are tokenised in one call."""


@dataclass(frozen=True)
class PromptReader:
    """How a model reads prompts, without the model, whose weights are free to go.

    Attributes:
        template: writes the prompts.
        tokenizer: the model's.
        seq2seq: whether it is an encoder-decoder.
    """

    template: PromptTemplate
    tokenizer: Any
    seq2seq: bool


def tokenise(
    samples: Samples,
    template: PromptTemplate,
    tokenizer: Any,
    *,
    seq2seq: bool,
    window: int,
    join_pieces: bool = True,
) -> Examples:
    """Write the prompts of `samples` and tokenise them.

    Pieces of prompts, such as titles, recur. With `join_pieces`, and enough rows for it to pay,
    each piece is tokenised once and a prompt's tokens are those of its pieces, joined. That is done
    only if it gives the tokens of the whole text on all of 10,000 random rows.

    Args:
        samples: the rows.
        template: writes the prompts.
        tokenizer: the model's tokenizer.
        seq2seq: whether the model is an encoder-decoder.
        window: longest prompt in tokens; a longer one loses its beginning.
        join_pieces: whether pieces may be tokenised by themselves.
    """
    rows: list[list[int]] = [[]] * len(samples)
    remaining: Ints = np.arange(len(samples))
    pays = len(samples) > CHECK_ROWS
    if join_pieces and template.recurs and pays:
        remaining = _fill_by_joining(rows, samples, template, tokenizer, seq2seq)
    rest = samples.take(remaining)
    _fill(rows, remaining, _whole_rows(rest, template, tokenizer, seq2seq))
    return pack(rows, samples.labels, samples.users, window=window)


def _fill_by_joining(
    rows: list[list[int]],
    samples: Samples,
    template: PromptTemplate,
    tokenizer: Any,
    seq2seq: bool,
) -> Ints:
    """Fill in random rows from whole prompts, and all others if joined pieces give the same.

    Returns:
        The rows that are still to be filled in.
    """
    order = stream(0, "checked prompts").permutation(len(samples))
    check_index = np.sort(order[:CHECK_ROWS])
    check_samples = samples.take(check_index)
    whole_rows = list(_whole_rows(check_samples, template, tokenizer, seq2seq))
    _fill(rows, check_index, whole_rows)
    remaining = np.setdiff1d(np.arange(len(samples)), check_index)
    pieces = Pieces(tokenizer, seq2seq=seq2seq)
    joined_rows = [pieces.join(prompt) for prompt in template.pieces_of(check_samples)]
    if joined_rows != whole_rows:
        return remaining
    prompts = template.pieces_of(samples.take(remaining))
    _fill(rows, remaining, map(pieces.join, prompts))
    return remaining[:0]


def _fill(rows: list[list[int]], index: Iterable[int], token_rows: Iterable[list[int]]) -> None:
    for n, token_row in zip(index, token_rows, strict=True):
        rows[n] = token_row


def _whole_rows(
    samples: Samples, template: PromptTemplate, tokenizer: Any, seq2seq: bool
) -> Iterator[list[int]]:
    """Tokens of each sample's whole prompt."""
    prompts = template.pieces_of(samples)
    while True:
        texts = ["".join(pieces) for pieces in islice(prompts, CHUNK_ROWS)]
        if not texts:
            return
        yield from prompt_ids(tokenizer, texts, seq2seq=seq2seq, chat=template.chat)


class Pieces:
    """Tokens of pieces of prompts, each tokenised once.

    A prompt's tokens are those of its pieces one after another, between the tokenizer's special
    tokens.
    """

    def __init__(self, tokenizer: Any, *, seq2seq: bool) -> None:
        self.tokenizer = tokenizer
        self.ids: dict[str, list[int]] = {}
        # The special tokens are what a whole prompt has beside the tokens of its text.
        text = "Liked"
        bare = self[text]
        (whole,) = prompt_ids(tokenizer, [text], seq2seq=seq2seq)
        start = _find(bare, whole)
        end = start + len(bare)
        self.before = whole[:start]
        self.after = whole[end:]

    def __getitem__(self, piece: str) -> list[int]:
        ids = self.ids.get(piece)
        if ids is None:
            ids = list(self.tokenizer(piece, add_special_tokens=False).input_ids)
            self.ids[piece] = ids
        return ids

    def join(self, pieces: Sequence[str]) -> list[int]:
        """Return the token ids of the prompt made of `pieces`."""
        row = list(self.before)
        for piece in pieces:
            row += self[piece]
        row += self.after
        return row


def _find(part: list[int], whole: list[int]) -> int:
    """Where `part` begins in `whole`; 0 if it is not in it."""
    for start in range(len(whole)):
        end = start + len(part)
        if whole[start:end] == part:
            return start
    return 0
