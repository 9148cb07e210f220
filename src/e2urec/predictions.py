"""What a model says about rows: answer-position states, from which scores and distances follow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from . import metrics
from .memory import hand_back
from .models import adapters
from .models.batches import Batch, Examples, by_length
from .models.ensemble import Ensemble
from .models.recommender import Recommender
from .training import Precision, autocast_type

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Predictions:
    """A model's answers to n rows.

    Attributes:
        hidden: (n, d) float32 answer-position states, 85 times smaller than the logits; None if only the odds exist.
        head: weight (V, d) and bias (V,) or None that turn states into logits.
        odds: (n,) log-odds of Yes against No.
        labels: (n,) 1 = liked.
        users: (n,) user codes.
    """

    hidden: Floats | None
    head: tuple[Floats, Floats | None]
    odds: Floats
    labels: npt.NDArray[np.integer[Any]]
    users: npt.NDArray[np.integer[Any]]

    def distances(self, other: "Predictions") -> dict[str, Floats]:
        """Row-wise `js`, `jeffreys`, `l2` over the vocabulary and `js_answers`, … over {Yes, No}, each (n,)."""
        answers = metrics.answer_distances(self.odds, other.odds)
        found = {f"{name}_answers": rows for name, rows in answers.items()}
        if self.hidden is None or other.hidden is None:
            return found
        return metrics.vocabulary_distances(self.hidden, self.head, other.hidden, other.head) | found


@torch.no_grad()
def states(
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
    return _ask(model, lambda batch: model.hidden(batch).float(), examples, active, batch_size, precision)


@dataclass(frozen=True)
class Live:
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
            adapters.narrowed(self.model.lm, self.active),
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
        odds = _ask(model, lambda batch: model.answers.log_odds(model.logits(batch)), examples, active, 32, precision)
    else:
        hidden = states(model, examples, active=active, precision=precision)
        odds = model.answers.log_odds_of(hidden, (weight, bias))
    return Predictions(
        hidden=None if hidden is None else hidden.cpu().numpy(),
        head=(weight.detach().cpu().numpy(), None if bias is None else bias.detach().cpu().numpy()),
        odds=odds.cpu().numpy(),
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
        for index in by_length(examples.lengths, batch_size):
            parts.append(question(model.collate(examples, index)))
            order.append(index)
            hand_back(len(parts))
    gathered = torch.cat(parts)
    rows = torch.empty_like(gathered)
    rows[torch.from_numpy(np.concatenate(order)).to(rows.device)] = gathered
    return rows
