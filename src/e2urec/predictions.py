"""What a model says about rows: answer-position states, from which scores and distances follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from . import metrics
from .models.batches import Examples, by_length
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
    batch_size: int = 64,
    precision: Precision = "auto",
) -> torch.Tensor:
    """Answer-position states of `examples` in their order, (n, d) float32 on the model's device.

    `active` names the adapters that answer; by default the recommender's own.
    """
    low = autocast_type(precision, model.device)
    parts, order = [], []
    with model.using(active), torch.autocast(model.device.type, dtype=low, enabled=low is not None):
        for index in by_length(examples.lengths, batch_size):
            parts.append(model.hidden(model.collate(examples, index)).float())
            order.append(index)
    gathered = torch.cat(parts)
    rows = torch.empty_like(gathered)
    rows[torch.from_numpy(np.concatenate(order)).to(rows.device)] = gathered
    return rows


@torch.no_grad()
def predict(
    model: Recommender,
    examples: Examples,
    *,
    active: Sequence[str] | None = None,
    precision: Precision = "auto",
) -> Predictions:
    """Answers of `model` to `examples`."""
    hidden = states(model, examples, active=active, precision=precision)
    weight, bias = model.head
    pair = [model.answers.yes, model.answers.no]
    answers = hidden @ weight[pair].T + (0 if bias is None else bias[pair])
    return Predictions(
        hidden=hidden.cpu().numpy(),
        head=(weight.detach().cpu().numpy(), None if bias is None else bias.detach().cpu().numpy()),
        odds=(answers[:, 0] - answers[:, 1]).cpu().numpy(),
        labels=examples.labels,
        users=examples.users,
    )
