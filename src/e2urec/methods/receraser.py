"""Sharded training with shards of similar users and learned weights (Chen et al. 2022, arXiv 2201.06820)."""

from typing import ClassVar

import numpy as np
from scipy import optimize, sparse, special

from ..core.arrays import Floats, Ints
from ..core.seeding import derive
from ..metrics.classification import log_loss
from ..models.batches import Examples
from ..models.ensemble import Ensemble, Mean
from ..models.predictions import predict
from ..unlearning.sharded import Sharded, balanced_clusters
from ..unlearning.task import Task, TrainingTask

LARGEST = 10.0
"""Bound of a shard's score before the softmax: the best weights may lie at infinity."""


def mean_embeddings(rows: Examples, users: Ints, table: Floats) -> Floats:
    """Mean embedding of all tokens in each user's prompts: `users` (u,) sorted, `table` (V, d) → (u, d)."""
    user = np.repeat(np.searchsorted(users, rows.users), rows.lengths)
    counts = sparse.coo_array(
        (np.ones(len(user)), (user, rows.tokens)), shape=(len(users), len(table))
    ).tocsr()
    return np.asarray((counts @ table) / counts.sum(1)[:, None])


def learned_weights(odds: Floats, labels: Ints) -> Floats:
    """The w = softmax(a) that minimises the log loss of Σ_k w_k·odds_k: (n, K) log-odds, (n,) labels → (K,).

    With d = odds·w and p = sigmoid(d): ∂loss/∂w = oddsᵀ(p − y)/n, ∂loss/∂a = w ⊙ (∂loss/∂w − ⟨w, ∂loss/∂w⟩).
    """
    odds = odds.astype(np.float64)

    def loss(a: Floats) -> tuple[float, Floats]:
        w = special.softmax(a)
        slope = odds.T @ (special.expit(odds @ w) - labels) / len(labels)
        return log_loss(labels, odds @ w), w * (slope - w @ slope)

    start = np.zeros(odds.shape[1])
    bounds = [(-LARGEST, LARGEST)] * len(start)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(special.softmax(found.x))


class RecEraser(Sharded):
    """Tune an adapter on each of several parts of similar users, and learn on validation how much each counts."""

    name: ClassVar[str] = "receraser"

    def assign(self, ground: TrainingTask, users: Ints) -> Ints:
        """Balanced clusters of the users' mean embeddings in the base: their items are what prompts differ by."""
        table = ground.base.lm.get_input_embeddings().weight.detach().float().cpu().numpy()
        return balanced_clusters(
            mean_embeddings(ground.train, users, table),
            self.shards,
            seed=derive(ground.seed, "shards"),
        )

    def combination(self, model: Ensemble, ground: TrainingTask | Task) -> Mean:
        """Mean of logits with learned weights; a shard without users has weight 0."""
        speaking, valid = np.unique(model.assignment.shard), self.validation(ground)
        odds = [
            predict(model, valid, active=(model.active[k],), precision=ground.precision).log_odds
            for k in speaking
        ]
        ground.costs.count_rows("aggregation", len(odds) * len(valid))
        weights = np.zeros(self.shards)
        if odds:
            weights[speaking] = learned_weights(np.stack(odds, -1), valid.labels)
        return Mean(tuple(weights.tolist()))
