"""Samples → token rows. Text exists only while it is being tokenised."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..core.seeding import stream
from ..data.prompts import PromptTemplate
from ..data.samples import Samples
from .batches import Examples, pack
from .verbaliser import prompt_ids

CHECKED = 10_000
"""Rows on which joined tokens must equal the tokens of the whole text before any row is joined."""
CHUNK = 4096


def tokenise(
    samples: Samples,
    template: PromptTemplate,
    tokenizer: Any,
    *,
    seq2seq: bool,
    window: int,
    joined: bool = True,
) -> Examples:
    """Render and tokenise `samples`; a prompt beyond `window` tokens loses its beginning.

    With `joined`, and enough rows for it to pay, the tokens of recurring pieces are made once and put together.
    That is so only if it gives the tokens of the whole text on all of 10,000 random rows.
    """
    rows: list[list[int]] = [[]] * len(samples)
    left = np.arange(len(samples))
    if joined and template.recurs and len(samples) > CHECKED:
        checked = np.sort(stream(0, "checked prompts").permutation(len(samples))[:CHECKED])
        pieces = Pieces(tokenizer, seq2seq=seq2seq)
        whole = list(_whole(samples.take(checked), template, tokenizer, seq2seq))
        _put(rows, checked, whole)
        left = np.setdiff1d(left, checked)
        if whole == [pieces.join(cut) for cut in template.pieces_of(samples.take(checked))]:
            _put(rows, left, (pieces.join(cut) for cut in template.pieces_of(samples.take(left))))
            left = left[:0]
    _put(rows, left, _whole(samples.take(left), template, tokenizer, seq2seq))
    return pack(rows, samples.labels, samples.users, window=window)


def _put(rows: list[list[int]], index: Iterable[int], found: Iterable[list[int]]) -> None:
    for n, row in zip(index, found, strict=True):
        rows[n] = row


def _whole(
    samples: Samples, template: PromptTemplate, tokenizer: Any, seq2seq: bool
) -> Iterator[list[int]]:
    """Tokens of whole prompts, some thousand at a time."""
    cuts = template.pieces_of(samples)
    while texts := ["".join(pieces) for pieces in islice(cuts, CHUNK)]:
        yield from prompt_ids(tokenizer, texts, seq2seq=seq2seq)


class Pieces:
    """Token ids of the pieces seen so far; a prompt's are theirs one after another, between the special tokens."""

    def __init__(self, tokenizer: Any, *, seq2seq: bool) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}
        probe = "Liked"
        bare, (whole,) = self[probe], prompt_ids(tokenizer, [probe], seq2seq=seq2seq)
        start = next((n for n in range(len(whole)) if whole[n : n + len(bare)] == bare), 0)
        self.before, self.after = whole[:start], whole[start + len(bare) :]

    def __getitem__(self, piece: str) -> list[int]:
        found = self.known.get(piece)
        if found is None:
            found = self.known[piece] = list(
                self.tokenizer(piece, add_special_tokens=False).input_ids
            )
        return found

    def join(self, pieces: Sequence[str]) -> list[int]:
        """Token ids of the prompt made of `pieces`."""
        row = list(self.before)
        for piece in pieces:
            row += self[piece]
        row += self.after
        return row
