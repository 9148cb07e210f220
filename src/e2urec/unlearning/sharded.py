"""Exact unlearning by shards: users are parted, each part tunes an adapter of its own on the base.

A request then costs the training of the shards that hold its users. What is left of the others is their absence
from D_f alone: the assignment of the users that stay was made when those that go were still there, and is kept.
"""

import math
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from pydantic import Field

from ..core.arrays import Floats, Ints
from ..core.errors import ConfigError
from ..core.seeding import derive, stream
from ..models import adapters
from ..models.adapters import LoRA
from ..models.backbone import Backbone
from ..models.batches import Examples
from ..models.ensemble import Blend, Ensemble, Mean, Weights
from ..models.recommender import Recommender
from ..training.loop import Phase, Schedule
from ..training.supervised import Tuning, tune
from .method import Method
from .task import Task, TrainingTask

SLACK = 1.2
"""Largest shard as a multiple of the mean one (Chen et al. 2022)."""


def balanced_clusters(points: Floats, k: int, *, seed: int, iterations: int = 10) -> Ints:
    """Part `points` (n, d) into k clusters of at most ⌈1.2·n/k⌉, by cosine: the cluster of each, (n,).

    Pairs of a point and a centre are taken in descending order of similarity while the point is free and the cluster
    has room; centres then move to their clusters' means, until nothing changes (Chen et al. 2022, algorithm 1).
    The first centres lie far apart: a random point, then each time the one least like any centre before it.

    Points count from their common mean, for what one language model makes of similar texts shares a large part, beside
    which all cosines would be near 1.
    """
    points = _unit(points - points.mean(0))
    capacity = math.ceil(SLACK * len(points) / k)
    chosen = [int(stream(seed, "centres").integers(len(points)))]
    while len(chosen) < k:
        nearest = (points @ points[chosen].T).max(1)
        nearest[chosen] = np.inf  # equal points may all be as far as can be; none is a centre twice
        chosen.append(int(nearest.argmin()))
    centres, cluster = points[chosen], np.full(len(points), -1)
    for _ in range(iterations):
        before, cluster = cluster, np.full(len(points), -1)
        room = np.full(k, capacity)
        for pair in np.argsort(-(points @ centres.T), axis=None, kind="stable"):
            point, centre = divmod(int(pair), k)
            if cluster[point] < 0 and room[centre]:
                cluster[point] = centre
                room[centre] -= 1
        if np.array_equal(cluster, before):
            break
        held = [points[cluster == j] for j in range(k)]
        centres = _unit(
            np.stack([part.mean(0) if len(part) else centres[j] for j, part in enumerate(held)])
        )
    return cluster


def _unit(points: Floats) -> Floats:
    return np.asarray(points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12))


class Sharded(Method):
    """What all methods by shards share. Each says who goes where (`assign`) and how answers are combined."""

    needs_base: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    prepares: ClassVar[bool] = True

    shards: int = Field(
        4, ge=2, description="parts of the users, each with an adapter of its own on the base"
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="highest learning rate of a shard's adapter"
    )
    lora: LoRA = Field(LoRA(rank=8, alpha=16, targets="all"), description="adapter of a shard")

    def assign(self, ground: TrainingTask, users: Ints) -> Ints:
        """The shard of each of `users` (u,), sorted codes: (u,) of 0 … shards − 1."""
        raise NotImplementedError

    def combination(self, model: Ensemble, ground: TrainingTask | Task) -> Mean | Blend:
        """How the shards' answers are combined: fitted on the validation rows alone."""
        raise NotImplementedError

    def prepare(self, ground: TrainingTask) -> Ensemble:
        """Part the users and train every shard.

        Raises:
            ConfigError: fewer users than shards.
        """
        users = np.unique(ground.train.users)
        if len(users) < self.shards:
            raise ConfigError(
                f"method '{self.name}': shards={self.shards}, but only {len(users)} users have training rows; "
                "set fewer shards"
            )
        with ground.costs.phase("assignment"):
            shard = self.assign(ground, users)
        return self.build(ground, users, shard)

    def build(self, ground: TrainingTask, users: Ints, shard: Ints) -> Ensemble:
        """The model with `users` in these shards, trained from the base: what an unlearned one must equal."""
        model = Ensemble(
            ground.base.fresh(),
            ground.template,
            self.lora,
            users,
            shard,
            shards=self.shards,
            seed=ground.seed,
            window=ground.window,
        )
        trained = self._trained(
            model, ground, ground.base, ground.train, range(self.shards), gone=users[:0]
        )
        return self._finish(model, ground, trained)

    def unlearn(self, task: Task) -> Ensemble:
        """Train the shards that hold rows of D_f again on what remains; the others keep their adapters.

        Raises:
            ConfigError: the original is not made of shards, or the base is not at hand.
        """
        model = task.original
        if not isinstance(model, Ensemble):
            raise ConfigError(
                f"method '{self.name}' starts from shards trained before any request; use it in e2urec compare"
            )
        if task.base is None:
            raise ConfigError(
                f"method '{self.name}' needs the base model; give the name or folder of it"
            )
        gone = np.setdiff1d(task.forget.users, task.retain.users)
        touched = np.unique(model.shard[np.isin(model.users, task.forget.users)])
        trained = self._trained(model, task, task.base, task.retain, touched, gone=gone)
        model.remove(gone)
        return self._finish(model, task, trained)

    def validation(self, ground: TrainingTask | Task) -> Examples:
        """The rows that a combination is fitted on; raises ConfigError where there are none."""
        if not len(ground.valid):
            raise ConfigError(
                f"method '{self.name}': no validation rows to fit weights on; give them a share in data.fractions"
            )
        return ground.valid

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """At most all of D_r, for the original's epochs: as many users as there are shards may touch them all."""
        return {"shards": schedule.epochs * retain}

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """About as many steps as those rows take, if every shard is touched."""
        return schedule.epochs * math.ceil(retain / schedule.batch_size)

    def _trained(
        self,
        model: Ensemble,
        ground: TrainingTask | Task,
        base: Backbone,
        rows: Examples,
        shards: Iterable[int],
        *,
        gone: Ints,
    ) -> dict[int, Weights | None]:
        """Adapters of `shards`, each a function of (seed, shard, its rows); None where nobody is left.

        The model itself is not touched, so an interrupted request leaves it as it was.
        """
        tuning = self._tuning(ground.tuning)
        untuned = Recommender(base, model.template, window=model.window)
        found: dict[int, Weights | None] = {}
        for k in map(int, shards):
            members = np.setdiff1d(model.users[model.shard == k], gone)
            mine = rows.take(np.flatnonzero(np.isin(rows.users, members)))
            if not len(mine):
                found[k] = None
                continue
            with ground.costs.phase("shards"):
                phase = Phase(f"shard {k}", derive(model.seed, "shard", k), ground.progress)
                tuned, trace = tune(untuned, tuning, mine, None, phase)
                found[k] = adapters.weights(tuned.lm, *tuned.active)
            ground.costs.count_rows("shards", trace.rows)
        return found

    def _finish(
        self, model: Ensemble, ground: TrainingTask | Task, trained: dict[int, Weights | None]
    ) -> Ensemble:
        for k, weights in trained.items():
            model.fill(k, weights)
        ground.costs.trainable = sum(
            value.numel()
            for weights in trained.values()
            if weights is not None
            for value in weights.values()
        )
        with ground.costs.phase("aggregation"):
            model.combination = self.combination(model, ground)
        return model

    def _tuning(self, original: Tuning) -> Tuning:
        """The original's schedule for an adapter; a shard reads no validation rows, which are the combination's."""
        changes = {"learning_rate": self.learning_rate, "patience": None}
        return Tuning(schedule=original.schedule.model_copy(update=changes), lora=self.lora)
