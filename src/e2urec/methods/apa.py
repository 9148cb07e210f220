"""Sharded training whose adapters are added up row by row.

APA, Hu et al. 2024, arXiv 2404.10327.

    Δ(x) = Σ_k w_k(x)·B_k·A_k,  w(x) = softmax_k(−τ·mean error of shard k near x)

"Near x" are the validation rows whose states in the base have the largest cosine with that of x.
Of the two published sums, this is the one of the products B_k·A_k, not of A_k and B_k apart.

The clusters are not the published ones (algorithm 1 of the paper):

- What is clustered: published, single rows by their states in the base. Ours, whole users by the
  mean of their rows' states, so that a request for a user concerns one shard and not all.
- Centres: published, those of one run of K-means on the states. Ours come from the balanced rounds
  themselves, which start from users far apart and move the centres until nothing changes.
- Similarity: published, the cosine of the states. Ours, that of the states less their common mean.
- Largest shard: published, all rows over K. Ours, 1.2 times the users over K.

Published, 20 rows are near for movies and 100 for books. An error here is a log loss in nats.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from ..core.arrays import Ints
from ..core.seeding import derive
from ..metrics.classification import row_losses
from ..models.ensemble import Blend, Ensemble
from ..models.predictions import answer_states
from ..models.recommender import Recommender
from ..unlearning.sharded import AnyTask, Sharded, balanced_clusters
from ..unlearning.task import TrainingTask


class APA(Sharded):
    """Tune an adapter on each of several semantic clusters of users; add them up as suits the row.

    A row is answered in one pass with the weighted sum of the adapters.
    """

    name: ClassVar[str] = "apa"
    fits_on_validation: ClassVar[bool] = True
    # The values of the paper (section 4.1.4), and steps of ten to either side. A validation row is
    # its own nearest neighbour, so a choice on these rows leans to the larger τ, there as here.
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "neighbours": (20, 100),
        "temperature": (10.0, 100.0, 1000.0, 10000.0),
    }

    neighbours: int = Field(
        20, ge=1, description="validation rows near a row that say which shards to trust"
    )
    # The published value: an advantage of 0.001 nat is worth a factor of e in weight, so a row is
    # mostly answered by the one shard that is best near it.
    temperature: float = Field(
        1000.0, ge=0, description="τ: 0 trusts all shards alike, more the best ones more"
    )

    def assign(self, task: TrainingTask, users: Ints) -> Ints:
        """Balanced clusters of the users' mean answer-position states in the base."""
        base = Recommender(task.base, task.template, window=task.window)
        rows = task.train
        row_states = answer_states(base, rows, precision=task.precision).cpu().numpy()
        task.costs.count_rows("assignment", len(row_states))
        means = []
        for user in users:
            user_states = row_states[rows.users == user]
            means.append(user_states.mean(0))
        seed = derive(task.seed, "shards")
        points = np.stack(means)
        return balanced_clusters(points, self.shards, seed=seed)

    def combination(self, model: Ensemble, task: AnyTask) -> Blend:
        """The base's states of the validation rows, and each shard's log loss on them."""
        valid = task.valid
        odds = self.shard_odds(model, task)
        # A shard without users keeps an error of +∞, which gives it no weight anywhere.
        shape = (len(valid), self.shards)
        errors = torch.full(
            shape,
            torch.inf,
            device=model.device,
        )
        for shard, shard_odds in odds.items():
            losses = row_losses(valid.labels, shard_odds)
            errors[:, shard] = torch.from_numpy(losses).float()
        # Without an adapter, so that no request moves the rows that lie near each other.
        base_states = answer_states(
            model,
            valid,
            active=(),
            precision=task.precision,
        )
        task.costs.count_rows("aggregation", len(valid))
        return Blend(
            states=F.normalize(base_states, dim=-1),
            errors=errors,
            neighbours=self.neighbours,
            temperature=self.temperature,
        )
