"""What a model answers about rows: answer-position states, which give scores and distances."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from ..core.allocator import release_free_memory
from ..core.arrays import Floats, Head, Ints, Weights
from ..metrics.distances import answer_distances, vocabulary_distances
from . import adapters
from .batches import FORWARD_BATCH_SIZE, Batch, Examples, batches_by_length
from .ensemble import Ensemble
from .output_head import OutputHead
from .precision import Precision, autocast
from .recommender import Recommender
from .sharing import in_turns

# All models on one base have one head, which nobody moves: without this, each answer of each model
# on a GPU would hold a copy of it.
COPIED_HEADS = WeakTensorKeyDictionary()
"""Heads that are on a GPU, as arrays, for as long as the models are there."""
NO_HEAD = Head(np.zeros((0, 0), np.float32), None)
"""Of answers without states."""


@dataclass(frozen=True)
class Predictions:
    """A model's answers to n rows.

    Attributes:
        hidden: (n, d) float32 answer-position states, 85 times smaller than the logits; None where
            nobody asked for them, or a model has log-odds alone.
        head: the output head, which turns states into logits; `NO_HEAD` without states.
        log_odds: (n,) log-odds of Yes against No.
        labels: (n,) 1 = liked.
        users: (n,) user codes.
    """

    hidden: Floats | None
    head: Head
    log_odds: Floats
    labels: Ints
    users: Ints

    def distances(self, other: "Predictions") -> dict[str, Floats]:
        """Return the distances between two models' answers to each row: name → (n,).

        `js`, `jeffreys` and `l2` are over the vocabulary, and are left out where a model has no
        states; `js_answers`, … are over {Yes, No}.
        """
        distances = answer_distances(self.log_odds, other.log_odds)
        over_answers = {f"{name}_answers": rows for name, rows in distances.items()}
        if self.hidden is None or other.hidden is None:
            return over_answers
        over_vocabulary = vocabulary_distances(self.hidden, self.head, other.hidden, other.head)
        return over_vocabulary | over_answers


@dataclass(frozen=True)
class LiveStates:
    """Answer-position states, as `answer_states` gives them, computed at each look-up of rows.

    A look-up must stand inside `Recommender.using`; the adapters `active` answer it.
    """

    model: Recommender
    examples: Examples
    active: Sequence[str]
    precision: Precision = "auto"

    def __len__(self) -> int:
        return len(self.examples)

    @torch.no_grad()
    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        model = self.model
        batch = model.collate(self.examples, rows.cpu().numpy())
        with (
            adapters.answering_adapters(model.lm, self.active),
            autocast(self.precision, model.device),
        ):
            return model.hidden(batch).float()


@torch.no_grad()
def predict(
    model: Recommender,
    examples: Examples,
    *,
    active: Sequence[str] | None = None,
    precision: Precision = "auto",
    states: bool = False,
) -> Predictions:
    """Return the answers of `model` to `examples`.

    Args:
        model: the model.
        examples: the rows.
        active: the adapters that answer; by default the recommender's own.
        precision: precision of the model below its output head.
        states: whether the states are kept as well, for distances over the vocabulary. A mean of
            probabilities (see `Mean`) has none.
    """
    model_head = model.head
    head = NO_HEAD
    hidden = None
    if isinstance(model, Ensemble) and not model.has_state:
        log_odds = _answers_by_row(model, examples, _log_odds, active, precision)
    elif states:
        # The states are kept rather than the logits, which are far larger and follow from them.
        row_states = answer_states(model, examples, active=active, precision=precision)
        log_odds = model.verbaliser.log_odds_of(row_states, model_head)
        hidden = row_states.cpu().numpy()
        head = _as_arrays(model_head)
    else:

        def log_odds_of_batch(model: Recommender, batch: Batch) -> torch.Tensor:
            return model.verbaliser.log_odds_of(_states(model, batch), model_head)

        log_odds = _answers_by_row(model, examples, log_odds_of_batch, active, precision)
    return Predictions(
        hidden=hidden,
        head=head,
        log_odds=log_odds.cpu().numpy(),
        labels=examples.labels,
        users=examples.users,
    )


def complete_log_odds(
    model: Recommender, examples: Examples, log_odds: Floats, *, precision: Precision = "auto"
) -> Floats:
    """The log-odds (n,) of `model` on `examples`: `log_odds`, with those that are NaN computed."""
    missing_rows = np.flatnonzero(np.isnan(log_odds))
    if not len(missing_rows):
        return log_odds
    answers = predict(model, examples.take(missing_rows), precision=precision)
    complete = log_odds.copy()
    complete[missing_rows] = answers.log_odds
    return complete


@torch.no_grad()
def answer_states(
    model: Recommender,
    examples: Examples,
    *,
    active: Sequence[str] | None = None,
    precision: Precision = "auto",
) -> torch.Tensor:
    """Return the answer-position states of `examples`, (n, d) float32 on the model's device.

    Args:
        model: the model.
        examples: the rows; states come in their order.
        active: the adapters that answer; by default the recommender's own.
        precision: precision of the model.
    """
    return _answers_by_row(model, examples, _states, active, precision)


def _as_arrays(head: OutputHead) -> Head:
    bias = None if head.bias is None else head.bias.detach().cpu().numpy()
    return Head(_as_array(head.weight), bias, head.cap, head.sets)


def _as_array(weight: torch.Tensor) -> Weights:
    """A head's weight without a copy; of one that is on a GPU, the same copy each time."""
    if weight.device.type == "cpu":
        return _bits(weight)
    if weight not in COPIED_HEADS:
        COPIED_HEADS[weight] = _bits(weight.cpu())
    array: Weights = COPIED_HEADS[weight]
    return array


def _bits(weight: torch.Tensor) -> Weights:
    values = weight.detach()
    if values.dtype == torch.bfloat16:
        values = values.view(torch.uint16)
    array: Weights = values.numpy()
    return array


def _states(model: Recommender, batch: Batch) -> torch.Tensor:
    return model.hidden(batch).float()


def _log_odds(model: Recommender, batch: Batch) -> torch.Tensor:
    return model.verbaliser.log_odds(model.logits(batch))


def _answers_by_row(
    model: Recommender,
    examples: Examples,
    question: Callable[[Recommender, Batch], torch.Tensor],
    active: Sequence[str] | None,
    precision: Precision,
) -> torch.Tensor:
    """Ask `model` a question about every row: its answers, (n, …), in the order of `examples`."""
    batches = batches_by_length(examples.lengths, FORWARD_BATCH_SIZE)
    parts = []

    def ask(index: Ints) -> torch.Tensor:
        return question(model, model.collate(examples, index))

    with model.using(active), autocast(precision, model.device):
        for answers in in_turns(batches, ask):
            parts.append(answers)
            release_free_memory(len(parts))
    by_length = torch.cat(parts)
    # The batches are in order of length: put their answers back into the order of the rows.
    order = torch.from_numpy(np.concatenate(batches)).to(by_length.device)
    by_row = torch.empty_like(by_length)
    by_row[order] = by_length
    return by_row
