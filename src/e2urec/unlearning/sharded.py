"""Exact unlearning by shards: users are parted, and each part tunes an adapter of its own.

A request then costs the training of the shards that hold its users. What is left of those users is
their absence alone: the assignment of the users that stay was made when all were there, and it does
not change.
"""

import math
from collections.abc import Iterable, Mapping
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
from ..models.ensemble import Blend, Ensemble, Mean, ShardAssignment, Weights
from ..models.predictions import predict
from ..models.recommender import Recommender
from ..training.loop import Schedule
from ..training.phase import Phase
from ..training.supervised import Tuning, tune
from .method import Method
from .task import Task, TrainingTask

AnyTask = TrainingTask | Task
"""What shards are trained for: an original before any request, or a request to one."""

# The published value: shards of equal size would tear similar users apart, and without a bound
# most users would land in one shard, which every request would then train again.
SLACK = 1.2
"""Largest shard as a multiple of the mean one (Chen et al. 2022)."""

UNASSIGNED = -1
"""Cluster of a point that is in none yet."""


def balanced_clusters(points: Floats, k: int, *, seed: int, iterations: int = 10) -> Ints:
    """Part points into clusters of bounded size, by cosine (Chen et al. 2022, algorithm 1).

    Pairs of a point and a centre are taken in descending order of similarity while the point is
    free and the cluster has room. Centres then move to the means of their clusters, until nothing
    changes.

    Points count from their common mean: what one language model makes of similar texts shares a
    large part, beside which all cosines would be near 1.

    Args:
        points: (n, d).
        k: how many clusters.
        seed: of the first centre.
        iterations: most rounds. They are bounded because a greedy round need not come closer.

    Returns:
        (n,) the cluster of each point; none has more than ⌈1.2·n/k⌉.
    """
    common_mean = points.mean(0)
    directions = _unit(points - common_mean)
    capacity = math.ceil(SLACK * len(points) / k)
    first_centres = _distant_points(directions, k, seed)
    centres = directions[first_centres]
    cluster = np.full(len(points), UNASSIGNED)
    for _ in range(iterations):
        previous = cluster
        similarity = directions @ centres.T
        cluster = _fill_clusters(similarity, capacity)
        # The same clusters have the same means, so all later rounds would be this one.
        if np.array_equal(cluster, previous):
            break
        centres = _moved_centres(directions, cluster, centres)
    return cluster


def _unit(points: Floats) -> Floats:
    """Points scaled to length 1; the bound leaves one at the origin where it is."""
    lengths = np.linalg.norm(points, axis=-1, keepdims=True)
    divisors = np.maximum(lengths, 1e-12)
    return np.asarray(points / divisors)


def _distant_points(directions: Floats, k: int, seed: int) -> list[int]:
    """Indices of k points far apart: a random one, then always the one least like any before."""
    random = stream(seed, "centres")
    first_index = int(random.integers(len(directions)))
    indices = [first_index]
    while len(indices) < k:
        centres = directions[indices]
        similarity = (directions @ centres.T).max(1)
        # Equal points may all be as far as can be; this keeps one from being a centre twice.
        similarity[indices] = np.inf
        indices.append(int(similarity.argmin()))
    return indices


def _fill_clusters(similarity: Floats, capacity: int) -> Ints:
    """The cluster of each point, (n,), from its similarity with each centre, (n, k)."""
    count, k = similarity.shape
    cluster = np.full(count, UNASSIGNED)
    room = np.full(k, capacity)
    # A stable sort: among equal pairs the first point goes first, on every machine.
    pairs = np.argsort(-similarity, axis=None, kind="stable")
    for pair in pairs:
        point, centre = divmod(int(pair), k)
        if cluster[point] == UNASSIGNED and room[centre]:
            cluster[point] = centre
            room[centre] -= 1
    return cluster


def _moved_centres(directions: Floats, cluster: Ints, centres: Floats) -> Floats:
    """The mean direction of each cluster, (k, d); an empty cluster keeps its centre."""
    means = []
    for number, centre in enumerate(centres):
        members = directions[cluster == number]
        mean = members.mean(0) if len(members) else centre
        means.append(mean)
    return _unit(np.stack(means))


class Sharded(Method):
    """What all methods by shards share.

    A method says which user goes where (`assign`) and how answers are combined (`combination`).
    """

    needs_base: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    prepares: ClassVar[bool] = True
    fits_on_validation: ClassVar[bool] = False
    """Whether `combination` reads validation rows, so that there has to be some."""

    shards: int = Field(
        4, ge=2, description="parts of the users, each with an adapter of its own on the base"
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="highest learning rate of a shard's adapter"
    )
    # Every linear layer: an adapter starts from the base, and has to learn the whole task.
    lora: LoRA = Field(LoRA(rank=8, alpha=16, targets="all"), description="adapter of a shard")

    def assign(self, task: TrainingTask, users: Ints) -> Ints:
        """The shard of each of `users` (u,), sorted codes: (u,) of 0 … shards − 1."""
        raise NotImplementedError

    def combination(self, model: Ensemble, task: AnyTask) -> Mean | Blend:
        """How the shards' answers are combined: fitted on the validation rows alone."""
        raise NotImplementedError

    def prepare(self, task: TrainingTask) -> Ensemble:
        """Part the users and train every shard.

        Raises:
            ConfigError: fewer users than shards, or no validation rows to fit a combination on.
        """
        self._check_validation(task, "give them a share in data.fractions")
        users = np.unique(task.train.users)
        # A shard that is empty from the start would cost an adapter and never answer.
        if len(users) < self.shards:
            raise ConfigError(
                f"method '{self.name}': shards={self.shards}, but only {len(users)} users have "
                "training rows; set fewer shards"
            )
        with task.costs.phase("assignment"):
            shard = self.assign(task, users)
        return self.build(task, users, shard)

    def build(self, task: TrainingTask, users: Ints, shard: Ints) -> Ensemble:
        """The model with `users` (u,) in these shards (u,), trained from the base.

        It is what an unlearned model must equal.
        """
        model = Ensemble(
            task.base.with_shared_weights(),
            task.template,
            self.lora,
            ShardAssignment(users, shard, self.shards),
            seed=task.seed,
            window=task.window,
        )
        weights = self._train_shards(model, task, task.base, task.train, range(self.shards))
        return self._assemble(model, task, weights)

    def unlearn(self, task: Task) -> Ensemble:
        """Train the shards that hold rows of D_f, or rewritten ones, again; the others stay.

        Raises:
            ConfigError: the original is not made of shards, the base is not at hand, or no
                validation rows are left to fit a combination on.
        """
        model = task.original
        if not isinstance(model, Ensemble):
            raise ConfigError(
                f"method '{self.name}' starts from shards trained before any request; "
                "use it in e2urec compare"
            )
        if task.base is None:
            raise ConfigError(
                f"method '{self.name}' needs the base model; give the name or folder of it"
            )
        self._check_validation(task, "the request leaves none; name less in it")
        assignment = model.assignment
        # A shard that was tuned on an old prompt has seen what goes in its history.
        rewritten_users = task.retain.users[task.rewritten]
        affected_users = np.concatenate([task.forget.users, rewritten_users])
        is_affected = np.isin(assignment.users, affected_users)
        shards = np.unique(assignment.shard[is_affected]).tolist()
        weights = self._train_shards(model, task, task.base, task.retain, shards)
        # Users some of whose rows stay in D_r stay in their shard. The others leave only now, so
        # that an interrupt while shards are trained leaves the model whole.
        forgotten_users = np.setdiff1d(task.forget.users, task.retain.users)
        model.remove_users(forgotten_users)
        return self._assemble(model, task, weights)

    def _check_validation(self, task: AnyTask, remedy: str) -> None:
        # Before any shard is trained: its hours would be lost.
        if self.fits_on_validation and not len(task.valid):
            raise ConfigError(
                f"method '{self.name}': no validation rows to fit weights on; {remedy}"
            )

    def shard_odds(self, model: Ensemble, task: AnyTask) -> dict[int, Floats]:
        """What each shard that holds a user answers alone.

        Returns:
            Shard → its log-odds on the validation rows, (n,).
        """
        valid = task.valid
        shards_with_users = np.unique(model.assignment.shard).tolist()
        odds: dict[int, Floats] = {}
        for shard in shards_with_users:
            adapter = model.active[shard]
            answers = predict(
                model,
                valid,
                active=(adapter,),
                precision=task.precision,
            )
            odds[shard] = answers.log_odds
        task.costs.count_rows("aggregation", len(odds) * len(valid))
        return odds

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """At most all of D_r, for the original's epochs.

        As many users as there are shards may touch them all.
        """
        return {"shards": schedule.epochs * retain}

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """About as many steps as those rows take, if every shard is touched."""
        return schedule.epochs * math.ceil(retain / schedule.batch_size)

    def _train_shards(
        self,
        model: Ensemble,
        task: AnyTask,
        base: Backbone,
        rows: Examples,
        shards: Iterable[int],
    ) -> dict[int, Weights | None]:
        """Adapters of `shards`, each a function of (seed, shard, its rows).

        A shard that has no row left gets None. The model itself is not touched, so an interrupted
        request leaves it as it was.
        """
        weights: dict[int, Weights | None] = {}
        for shard in shards:
            members = model.assignment.users[model.assignment.shard == shard]
            is_member = np.isin(rows.users, members)
            member_rows = rows.take(np.flatnonzero(is_member))
            weights[shard] = None
            if len(member_rows):
                weights[shard] = self._train_shard(model, task, base, member_rows, shard)
        return weights

    def _train_shard(
        self, model: Ensemble, task: AnyTask, base: Backbone, rows: Examples, shard: int
    ) -> Weights:
        """The adapter of `shard`, tuned from the base on `rows` alone."""
        with task.costs.phase("shards"):
            # No validation rows: they are the combination's, and would tie the shards together.
            # The model's seed, not the request's: a shard trained again is trained alike.
            seed = derive(model.seed, "shard", shard)
            phase = Phase(f"shard {shard}", seed, task.progress, task.checkpoints)
            untuned = Recommender(base, model.template, window=model.window)
            tuning = self._shard_tuning(task.tuning)
            tuned, trace = tune(untuned, tuning, rows, None, phase)
            weights = adapters.weights(tuned.lm, *tuned.active)
        task.costs.count_training("shards", trace)
        return weights

    def _assemble(
        self, model: Ensemble, task: AnyTask, weights: Mapping[int, Weights | None]
    ) -> Ensemble:
        """Put the adapters in place, and combine the answers anew."""
        parameter_count = 0
        for shard, adapter in weights.items():
            model.fill(shard, adapter)
            if adapter is not None:
                parameter_count += sum(value.numel() for value in adapter.values())
        # Only the shards that were trained count: what a request moves is its cost.
        task.costs.trainable = parameter_count
        with task.costs.phase("aggregation"):
            model.combination = self.combination(model, task)
        return model

    def _shard_tuning(self, original: Tuning) -> Tuning:
        """The original's schedule for an adapter.

        A shard reads no validation rows, so it has no patience.
        """
        changes = {"learning_rate": self.learning_rate, "patience": None}
        schedule = original.schedule.model_copy(update=changes)
        return Tuning(schedule=schedule, lora=self.lora)
