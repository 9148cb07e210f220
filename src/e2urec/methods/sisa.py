"""Sharded training with random shards and equal votes (Bourtoule et al. 2021, arXiv 1912.03817)."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ..core.arrays import Ints
from ..core.seeding import stream
from ..models.ensemble import Ensemble, Mean
from ..unlearning.sharded import Sharded
from ..unlearning.task import Task, TrainingTask


class SISA(Sharded):
    """Tune an adapter on each of several random parts of the users; forget by tuning the parts concerned again."""

    name: ClassVar[str] = "sisa"

    aggregate: Literal["logits", "probabilities"] = Field(
        "logits", description="what the shards' answers are averaged as"
    )

    def assign(self, ground: TrainingTask, users: Ints) -> Ints:
        """Random shards whose sizes differ by one user at most."""
        return stream(ground.seed, "shards").permutation(np.arange(len(users)) % self.shards)

    def combination(self, model: Ensemble, ground: TrainingTask | Task) -> Mean:
        """Equal weights: nothing to fit."""
        return Mean((1.0,) * self.shards, self.aggregate)
