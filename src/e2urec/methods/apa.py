"""Sharded training whose adapters are added up row by row (Hu et al. 2024, arXiv 2404.10327)."""

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from ..core.arrays import Ints
from ..core.seeding import derive
from ..metrics.classification import row_losses
from ..models.ensemble import Blend, Ensemble
from ..models.predictions import predict, states
from ..models.recommender import Recommender
from ..unlearning.sharded import Sharded, balanced_clusters
from ..unlearning.task import Task, TrainingTask


class APA(Sharded):
    """Tune an adapter on each of several semantic clusters of users; add them up as suits the row, in one pass."""

    name: ClassVar[str] = "apa"

    neighbours: int = Field(
        20, ge=1, description="validation rows near a row that say which shards to trust"
    )
    temperature: float = Field(
        10.0, ge=0, description="τ: 0 trusts all shards alike, more the best ones more"
    )

    def assign(self, ground: TrainingTask, users: Ints) -> Ints:
        """Balanced clusters of the users' mean answer-position states in the base."""
        base = Recommender(ground.base, ground.template, window=ground.window)
        rows = states(base, ground.train, precision=ground.precision).cpu().numpy()
        ground.costs.count_rows("assignment", len(rows))
        means = np.stack([rows[ground.train.users == user].mean(0) for user in users])
        return balanced_clusters(means, self.shards, seed=derive(ground.seed, "shards"))

    def combination(self, model: Ensemble, ground: TrainingTask | Task) -> Blend:
        """The base's states of the validation rows, and each shard's log loss on them; +∞ for one without users."""
        valid = self.validation(ground)
        errors = torch.full((len(valid), self.shards), torch.inf, device=model.device)
        speaking = np.unique(model.shard)
        for k in speaking:
            odds = predict(model, valid, active=(model.active[k],), precision=ground.precision).odds
            errors[:, k] = torch.from_numpy(row_losses(valid.labels, odds)).float()
        keys = states(model, valid, active=(), precision=ground.precision)
        ground.costs.count_rows("aggregation", (len(speaking) + 1) * len(valid))
        return Blend(F.normalize(keys, dim=-1), errors, self.neighbours, self.temperature)
