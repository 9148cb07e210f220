"""Recommenders made of shards: one base, one adapter for each part of the users.

A combination turns the answers of the shards into one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..core.arrays import Ints
from ..core.errors import ModelError
from ..core.seeding import derive
from ..data.prompts import PromptTemplate
from . import adapter_algebra, adapters
from .adapters import LoRA
from .backbone import Backbone
from .batches import Batch
from .recommender import Recommender

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ShardAssignment:
    """Which shard each user is in.

    Attributes:
        users: (u,) codes of the users the shards were tuned on, sorted.
        shard: (u,) the shard of each, 0 … count − 1.
        count: number of shards, empty ones included.
    """

    users: Ints
    shard: Ints
    count: int

    def without(self, users: Ints) -> "ShardAssignment":
        """Return the assignment with `users` taken out."""
        stays = ~np.isin(self.users, users)
        return replace(self, users=self.users[stays], shard=self.shard[stays])


@dataclass(frozen=True)
class Mean:
    """Weighted mean of the shards' answers.

    Attributes:
        weights: w_k ≥ 0 of each shard. Those of the shards that answer are divided by their sum.
        space: `logits`: Σ w_k z_k over the vocabulary, which is the common head applied to
            Σ w_k h_k. Or `probabilities`: log Σ w_k softmax(z_k), which is not the head applied to
            any one state.
    """

    weights: tuple[float, ...]
    space: Literal["logits", "probabilities"] = "logits"

    def shares(self, shards: Sequence[int]) -> list[float]:
        """Return the weights of `shards` with sum 1; equal ones if all of theirs are 0."""
        weights = [self.weights[k] for k in shards]
        total = sum(weights)
        if not total:
            return [1 / len(weights)] * len(weights)
        return [weight / total for weight in weights]


@dataclass(frozen=True)
class Blend:
    """Sum of the adapters, with weights that depend on the row.

    For row x, each frozen layer gains Σ_k w_k(x)·B_kA_k·x, with
    `w(x) = softmax_k(−τ·mean error of shard k on the validation rows nearest to x)`. Rows are near
    if the cosine of the base's answer-position states is high. This is APA's sample-adaptive
    aggregation (Hu et al. 2024, arXiv 2404.10327).

    Attributes:
        states: (n, d) the base's states of the validation rows, of length 1.
        errors: (n, K) log loss of each shard on these rows, in nats.
        neighbours: number of nearest validation rows whose errors give a row's weights.
        temperature: τ.
    """

    states: torch.Tensor
    errors: torch.Tensor
    neighbours: int
    temperature: float

    def weights(self, states: torch.Tensor, shards: Sequence[int]) -> torch.Tensor:
        """Return the weights of `shards` for rows with the base's `states`: (b, d) → (b, K')."""
        directions = F.normalize(states, dim=-1)
        similarity = directions @ self.states.T
        # There may be fewer validation rows than neighbours.
        neighbour_count = min(self.neighbours, len(self.states))
        nearest = similarity.topk(neighbour_count).indices
        mean_errors = self.errors[nearest].mean(1)
        shard_errors = mean_errors[:, list(shards)]
        return (-self.temperature * shard_errors).softmax(-1)


class Ensemble(Recommender):
    """Adapters `shard_0`, `shard_1`, … on one frozen base that saw no user.

    A shard answers if its adapter is active (see `using`) and it holds a user. The combination
    makes one answer of several; a single shard gives its own, and without any the base answers.
    Further adapters that are active (relearning) take part in every shard's answer.

    Attributes:
        assignment: which shard each user is in.
        seed: seed of the shards' training: a shard that is trained again gets the same one.
        combination: how the answers are combined.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: PromptTemplate,
        lora: LoRA,
        assignment: ShardAssignment,
        *,
        seed: int,
        window: int = 512,
    ) -> None:
        """Attach an adapter for each shard, zero at first, to `backbone`, which is used up."""
        lm = backbone.lm
        names = tuple(f"shard_{k}" for k in range(assignment.count))
        # Each shard's first weights depend on its number alone: training it again starts from them.
        for name in names:
            lm = adapters.attach(lm, name, lora, seed=derive(seed, name))
        adapted = replace(backbone, lm=lm)
        super().__init__(adapted, template, window=window)
        self.active = names
        self.assignment = assignment
        self.seed = seed
        self.combination: Mean | Blend = Mean((1.0,) * assignment.count)

    @property
    def has_state(self) -> bool:
        """Whether the combined answer is the head applied to one hidden state for each row."""
        return isinstance(self.combination, Blend) or self.combination.space == "logits"

    def fill(self, k: int, weights: Weights | None) -> None:
        """Give shard `k` an adapter tuned elsewhere; None empties it."""
        if weights is None:
            adapters.clear(self.lm, self.active[k])
        else:
            adapters.load_weights(self.lm, self.active[k], weights)

    def remove_users(self, users: Ints) -> None:
        """Forget which shards `users` were in."""
        self.assignment = self.assignment.without(users)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Return the state of the combined answer, (b, d); see `has_state`."""
        shards = self._answering_shards()
        if not shards:
            return super().hidden(batch)
        if len(shards) == 1:
            return self._shard_hidden(batch, shards[0])
        if isinstance(self.combination, Blend):
            return self._blended_hidden(batch, self.combination, shards)
        assert self.has_state, "a mean of probabilities has no state"
        shares = self.combination.shares(shards)
        states = []
        for k, share in zip(shards, shares, strict=True):
            state = self._shard_hidden(batch, k).float()
            states.append(share * state)
        return torch.stack(states).sum(0)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return the logits of the combined answer, (b, V).

        For a mean of probabilities these are the logarithms of the probabilities.
        """
        shards = self._answering_shards()
        if len(shards) < 2 or self.has_state:
            return super().logits(batch)
        combination = self.combination
        assert isinstance(combination, Mean), "a blend has a state"
        parts = []
        for k, share in zip(shards, combination.shares(shards), strict=True):
            # The logarithm of a share of 0 is −∞, and such a shard adds nothing.
            if share:
                logits = self.to_logits(self._shard_hidden(batch, k))
                parts.append(logits.log_softmax(-1) + np.log(share))
        return torch.stack(parts).logsumexp(0)

    forward = logits

    def recomputable_blocks(self) -> list[nn.Module]:
        """None: by the time of the backward pass, other adapters are active than in the pass."""
        return []

    def save(self, folder: Path) -> None:
        """Refuse: the assignment names users, and no plain library would load the model.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            "sharded model: is kept in memory only; "
            "use a method that gives one adapter, or e2urec compare"
        )

    def _answering_shards(self) -> list[int]:
        """The shards that are active and hold a user."""
        active = adapters.active_names(self.lm)
        # `Recommender` asks for logits before there is an assignment; `self.active` is empty then.
        return [
            k
            for k, name in enumerate(self.active)
            if name in active and np.any(self.assignment.shard == k)
        ]

    def _further_adapters(self) -> list[str]:
        """Adapters that are active and belong to no shard."""
        return [name for name in adapters.active_names(self.lm) if name not in self.active]

    def _shard_hidden(self, batch: Batch, k: int) -> torch.Tensor:
        """State of shard `k`'s own answer, (b, d)."""
        active = [self.active[k], *self._further_adapters()]
        with adapters.answering_adapters(self.lm, active):
            return super().hidden(batch)

    def _blended_hidden(self, batch: Batch, blend: Blend, shards: Sequence[int]) -> torch.Tensor:
        """State of the blend's answer, (b, d), from two passes.

        The base alone gives the states that the weights come from; all adapters give the answer.
        """
        names = [self.active[k] for k in shards]
        active = [*names, *self._further_adapters()]
        with torch.no_grad(), adapters.answering_adapters(self.lm, ()):
            states = super().hidden(batch).float()
            weights = blend.weights(states, shards)
        weight_of_adapter = dict(zip(names, weights.unbind(-1), strict=True))
        with (
            adapters.answering_adapters(self.lm, active),
            adapter_algebra.row_weights(self.lm, weight_of_adapter),
        ):
            return super().hidden(batch)
