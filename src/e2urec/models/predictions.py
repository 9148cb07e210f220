"""What a model says about rows: answer-position states, from which scores and distances follow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..core.allocator import release_free_memory
from ..core.arrays import Floats, Ints
from ..metrics.distances import answer_distances, vocabulary_distances
from . import adapters
from .batches import Batch, Examples, batches_by_length
from .ensemble import Ensemble
from .precision import Precision, autocast_type
from .recommender import Recommender


@dataclass(frozen=True)
class Predictions:
    """A model's answers to n rows.

    Attributes:
        hidden: (n, d) float32 answer-position states, 85 times smaller than the logits; None if only the odds exist.
        head: weight (V, d) and bias (V,) or None that turn states into logits.
        log_odds: (n,) log-odds of Yes against No.
        labels: (n,) 1 = liked.
        users: (n,) user codes.
    """

    hidden: Floats | None
    head: tuple[Floats, Floats | None]
    log_odds: Floats
    labels: Ints
    users: Ints

    def distances(self, other: "Predictions") -> dict[str, Floats]:
        """Row-wise `js`, `jeffreys`, `l2` over the vocabulary and `js_answers`, … over {Yes, No}, each (n,)."""
        answers = answer_distances(self.log_odds, other.log_odds)
        found = {f"{name}_answers": rows for name, rows in answers.items()}
        if self.hidden is None or other.hidden is None:
            return found
        return vocabulary_distances(self.hidden, self.head, other.hidden, other.head) | found


@torch.no_grad()
def answer_states(
    model: Recommender,
    examples: Examples,
    *,
    active: Sequence[str] | None = None,
    batch_size: int = 32,
    precision: Precision = "auto",
) -> torch.Tensor:
    """Answer-position states of `examples` in their order, (n, d) float32 on the model's device.

    `active` names the adapters that answer; by default the recommender's own.
    """
    return _ask(
        model, lambda batch: model.hidden(batch).float(), examples, active, batch_size, precision
    )


@dataclass(frozen=True)
class LiveStates:
    """The same states, but computed anew each time that rows are looked up, inside `using`."""

    model: Recommender
    examples: Examples
    active: Sequence[str]
    precision: Precision = "auto"

    def __len__(self) -> int:
        return len(self.examples)

    @torch.no_grad()
    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        low = autocast_type(self.precision, self.model.device)
        with (
            adapters.answering_adapters(self.model.lm, self.active),
            torch.autocast(self.model.device.type, dtype=low, enabled=low is not None),
        ):
            return self.model.hidden(self.model.collate(self.examples, rows.cpu().numpy())).float()


@torch.no_grad()
def predict(
    model: Recommender,
    examples: Examples,
    *,
    active: Sequence[str] | None = None,
    precision: Precision = "auto",
) -> Predictions:
    """Answers of `model` to `examples`; a mean of probabilities has odds and no state."""
    weight, bias = model.head
    if isinstance(model, Ensemble) and not model.has_state:
        hidden = None
        odds = _ask(
            model,
            lambda batch: model.verbaliser.log_odds(model.logits(batch)),
            examples,
            active,
            32,
            precision,
        )
    else:
        hidden = answer_states(model, examples, active=active, precision=precision)
        odds = model.verbaliser.log_odds_of(hidden, (weight, bias))
    return Predictions(
        hidden=None if hidden is None else hidden.cpu().numpy(),
        head=(weight.detach().cpu().numpy(), None if bias is None else bias.detach().cpu().numpy()),
        log_odds=odds.cpu().numpy(),
        labels=examples.labels,
        users=examples.users,
    )


def _ask(
    model: Recommender,
    question: Callable[[Batch], torch.Tensor],
    examples: Examples,
    active: Sequence[str] | None,
    batch_size: int,
    precision: Precision,
) -> torch.Tensor:
    """What `question` answers about each row, (n, …), in the order of `examples`; `active` adapters take part."""
    low = autocast_type(precision, model.device)
    parts, order = [], []
    with model.using(active), torch.autocast(model.device.type, dtype=low, enabled=low is not None):
        for index in batches_by_length(examples.lengths, batch_size):
            parts.append(question(model.collate(examples, index)))
            order.append(index)
            release_free_memory(len(parts))
    gathered = torch.cat(parts)
    rows = torch.empty_like(gathered)
    rows[torch.from_numpy(np.concatenate(order)).to(rows.device)] = gathered
    return rows
