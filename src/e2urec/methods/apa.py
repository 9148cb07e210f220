"""Sharded training whose adapters are added up row by row.

APA, Hu et al. 2024, arXiv 2404.10327.

    Δ(x) = Σ_k w_k(x)·B_k·A_k,  w(x) = softmax_k(−τ·mean error of shard k near x)

"Near x" are the validation rows whose states in the base have the largest cosine with that of x.
Ours: whole users are clustered, by the mean of their rows' states, so that a request for a user
concerns one shard.
"""

from typing import ClassVar

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

    neighbours: int = Field(
        20, ge=1, description="validation rows near a row that say which shards to trust"
    )
    # At τ = 10 an advantage of 0.1 nat in log loss is worth a factor of e in weight.
    temperature: float = Field(
        10.0, ge=0, description="τ: 0 trusts all shards alike, more the best ones more"
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
        valid = self.validation_rows(task)
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
