"""Sharded training with random shards and equal votes.

Bourtoule et al. 2021, arXiv 1912.03817.

    z(x) = (1/K)·Σ_k z_k(x), shard k tuned on its own users alone

Ours: a shard is an adapter on a shared base, and its users are not divided further into slices.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ..core.arrays import Ints
from ..core.seeding import stream
from ..models.ensemble import Ensemble, Mean
from ..unlearning.sharded import AnyTask, Sharded
from ..unlearning.task import TrainingTask


class SISA(Sharded):
    """Tune an adapter on each of several random parts of the users, and average their answers.

    A request tunes the parts that it concerns again.
    """

    name: ClassVar[str] = "sisa"

    aggregate: Literal["logits", "probabilities"] = Field(
        "logits", description="what the shards' answers are averaged as"
    )

    def assign(self, task: TrainingTask, users: Ints) -> Ints:
        """Random shards whose sizes differ by one user at most."""
        # Dealt out in turn, so that sizes are even; the shuffle then makes it random who is where.
        shards_in_turn = np.arange(len(users)) % self.shards
        random = stream(task.seed, "shards")
        return random.permutation(shards_in_turn)

    def combination(self, model: Ensemble, task: AnyTask) -> Mean:
        """Equal weights: nothing to fit."""
        weights = (1.0,) * self.shards
        return Mean(weights, self.aggregate)
