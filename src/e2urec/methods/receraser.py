"""Sharded training with shards of similar users and learned weights.

RecEraser, Chen et al. 2022, arXiv 2201.06820.

    z(x) = Σ_k w_k·z_k(x), shard k tuned on its own users alone, w fitted on validation rows

The aggregation is simpler than the published one. Published, a shard i has an embedding P_i of
every user and one of every item. For each user, and likewise for each item,

    P'_i = W_i·P_i + b_i,  P = Σ_i w_i·P'_i,  w = softmax_i(h·relu(W·P'_i + b))

so every user and item has weights of its own. W_i, b_i, W, b and h are trained on the training rows
with the shards frozen, and again after every request. A language model has no embedding of a user.
Ours is one weight a shard, the same for every row, fitted to the validation rows. (Hu et al. 2024,
arXiv 2404.10327, leave the attention out too: their RecEraser for language models takes the mean.)

The clusters differ as well. Published (user-based partition), a user is an embedding pretrained by
matrix factorisation, the first centres are random users, and the distance is Euclidean. Ours: a
user is the mean embedding of the tokens in the user's prompts, the first centres are far apart, and
the similarity is the cosine.
"""

from typing import ClassVar

import numpy as np
from scipy import optimize, sparse, special

from ..core.arrays import Floats, Ints
from ..core.seeding import derive
from ..metrics.classification import log_loss
from ..models.batches import Examples
from ..models.ensemble import Ensemble, Mean
from ..unlearning.sharded import AnyTask, Sharded, balanced_clusters
from ..unlearning.task import TrainingTask

# The best weights may lie at infinity, where one shard has them all. e^10 to 1 is as good as that.
MAX_SCORE = 10.0
"""Bound of the score that a shard has before the softmax."""


def mean_embeddings(rows: Examples, users: Ints, table: Floats) -> Floats:
    """Mean embedding of all tokens in a user's prompts.

    Args:
        rows: the prompts.
        users: (u,) sorted codes of the users.
        table: (V, d) token embeddings.

    Returns:
        (u, d), a row a user.
    """
    row_user = np.searchsorted(users, rows.users)
    token_user = np.repeat(row_user, rows.lengths)
    # A sparse count of (user, token) spares the embeddings of all tokens of all prompts at once.
    ones = np.ones(len(token_user))
    places = (token_user, rows.tokens)
    counts = sparse.coo_array(
        (ones, places),
        shape=(len(users), len(table)),
    )
    counts = counts.tocsr()
    sums = counts @ table
    token_counts = counts.sum(1)
    means = sums / token_counts[:, None]
    return np.asarray(means)


def learned_weights(odds: Floats, labels: Ints) -> Floats:
    """The w = softmax(a) that minimises the log loss of Σ_k w_k·odds_k.

    With d = odds·w and p = sigmoid(d): ∂loss/∂w = oddsᵀ(p − y)/n, and
    ∂loss/∂a = w ⊙ (∂loss/∂w − ⟨w, ∂loss/∂w⟩).

    Args:
        odds: (n, K) log-odds that the shards give the rows.
        labels: (n,) right answers.

    Returns:
        (K,) weights, which sum to 1.
    """
    # The optimiser compares losses that differ by less than float32 can tell.
    odds = odds.astype(np.float64)

    def loss_and_gradient(a: Floats) -> tuple[float, Floats]:
        w = special.softmax(a)
        combined = odds @ w
        p = special.expit(combined)
        surprise = p - labels
        slope = odds.T @ surprise / len(labels)
        gradient = w * (slope - w @ slope)
        return log_loss(labels, combined), gradient

    # Equal scores are the start: shards that are equally good then keep equal weights.
    shard_count = odds.shape[1]
    solution = optimize.minimize(
        loss_and_gradient,
        np.zeros(shard_count),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-MAX_SCORE, MAX_SCORE)] * shard_count,
    )
    return np.asarray(special.softmax(solution.x))


class RecEraser(Sharded):
    """Tune an adapter on each of several parts of similar users, and learn what each counts.

    The weights of the parts are fitted on the validation rows.
    """

    name: ClassVar[str] = "receraser"
    fits_on_validation: ClassVar[bool] = True

    def assign(self, task: TrainingTask, users: Ints) -> Ints:
        """Balanced clusters of the users' mean embeddings in the base.

        Prompts differ by their items, so the mean embedding of a user stands for the user's items.
        """
        embeddings = task.base.lm.get_input_embeddings().weight
        table = embeddings.detach().float().cpu().numpy()
        points = mean_embeddings(task.train, users, table)
        seed = derive(task.seed, "shards")
        return balanced_clusters(points, self.shards, seed=seed)

    def combination(self, model: Ensemble, task: AnyTask) -> Mean:
        """Mean of logits with learned weights; a shard without users has weight 0."""
        valid = task.valid
        odds = self.shard_odds(model, task)
        weights = np.zeros(self.shards)
        # A request may take all users; then there is nothing to weigh.
        if odds:
            shards_with_users = list(odds)
            columns = np.stack(list(odds.values()), -1)
            weights[shards_with_users] = learned_weights(columns, valid.labels)
        return Mean(tuple(weights.tolist()))
