"""Recommenders made of shards: several adapters on one base, each tuned on some users alone, and how they agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

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
class Mean:
    """Weighted mean of what the shards answer, w_k ≥ 0, of logits or of probabilities over the whole vocabulary.

    Attributes:
        weights: one a shard; those of the shards that speak are divided by their sum.
        of: `logits`: Σ w_k z_k, which is the common head applied to Σ w_k h_k; or `probabilities`:
            log Σ w_k softmax(z_k), of which no one state is the cause.
    """

    weights: tuple[float, ...]
    of: Literal["logits", "probabilities"] = "logits"

    def shares(self, speaking: Sequence[int]) -> list[float]:
        """Weights of the shards `speaking`, summing to 1; equal ones if theirs are all 0."""
        chosen = [self.weights[k] for k in speaking]
        total = sum(chosen)
        return [weight / total if total else 1 / len(chosen) for weight in chosen]


@dataclass(frozen=True)
class Blend:
    """Adapters added up with weights that depend on the row x: each frozen layer gains Σ_k w_k(x)·B_kA_k·x.

    `w(x) = softmax_k(−τ·mean error of shard k on the validation rows nearest to x)`, nearness by cosine of the base's
    answer-position states: APA's sample-adaptive aggregation (Hu et al. 2024, arXiv 2404.10327).

    Attributes:
        states: (n, d) the base's states of the validation rows, of length 1.
        errors: (n, K) each shard's log loss on them, in nats.
        neighbours: how many of them speak for a row.
        temperature: τ.
    """

    states: torch.Tensor
    errors: torch.Tensor
    neighbours: int
    temperature: float

    def weights(self, states: torch.Tensor, speaking: Sequence[int]) -> torch.Tensor:
        """Weights of the shards `speaking` for rows with the base's `states`: (b, d) → (b, len(speaking))."""
        near = (
            (F.normalize(states, dim=-1) @ self.states.T)
            .topk(min(self.neighbours, len(self.states)))
            .indices
        )
        return (-self.temperature * self.errors[near].mean(1)[:, list(speaking)]).softmax(-1)


class Ensemble(Recommender):
    """Adapters `shard_0`, `shard_1`, … on one frozen base that saw no user, and a combination of their answers.

    Of the shards that are active (`using`), those that hold a user speak; alone, one gives its own answer, and
    without any the base does. Adapters of others on top (relearning) take part in every shard's answer.

    Attributes:
        users: (u,) codes of the users the shards were tuned on, sorted.
        shard: (u,) in which shard each is.
        seed: of the shards' training: a shard that is trained again is trained alike.
        combination: how the answers are combined.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: PromptTemplate,
        lora: LoRA,
        users: Ints,
        shard: Ints,
        *,
        shards: int,
        seed: int,
        window: int = 512,
    ) -> None:
        """Attach `shards` adapters, zero at first, to `backbone`, which is used up."""
        lm = backbone.lm
        names = tuple(f"shard_{k}" for k in range(shards))
        for name in names:
            lm = adapters.attach(lm, name, lora, seed=derive(seed, name))
        super().__init__(Backbone(lm, backbone.tokenizer, backbone.name), template, window=window)
        self.active = names
        self.users, self.shard, self.seed = users, shard, seed
        self.combination: Mean | Blend = Mean((1.0,) * shards)

    @property
    def has_state(self) -> bool:
        """Whether one hidden state a row is what the head turns into the combined answer."""
        return isinstance(self.combination, Blend) or self.combination.of == "logits"

    def fill(self, k: int, weights: Weights | None) -> None:
        """Give shard `k` an adapter tuned elsewhere; None empties it."""
        if weights is None:
            adapters.clear(self.lm, self.active[k])
        else:
            adapters.load_weights(self.lm, self.active[k], weights)

    def remove(self, users: Ints) -> None:
        """Forget where `users` were."""
        stay = ~np.isin(self.users, users)
        self.users, self.shard = self.users[stay], self.shard[stay]

    def hidden(self, batch: Batch) -> torch.Tensor:
        """State of the combined answer, (b, d); see `has_state`."""
        speaking, others = self._present()
        if not speaking:
            return super().hidden(batch)
        if len(speaking) == 1:
            return self._alone(batch, speaking[0], others)
        if isinstance(self.combination, Blend):
            return self._blended(batch, self.combination, speaking, others)
        assert self.has_state, "a mean of probabilities has no state"
        shares = self.combination.shares(speaking)
        states = (
            share * self._alone(batch, k, others).float()
            for k, share in zip(speaking, shares, strict=True)
        )
        return torch.stack(list(states)).sum(0)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits of the combined answer, (b, V); for a mean of probabilities their logarithms."""
        speaking, others = self._present()
        if len(speaking) < 2 or isinstance(self.combination, Blend) or self.has_state:
            return super().logits(batch)
        parts = []
        for k, share in zip(speaking, self.combination.shares(speaking), strict=True):
            if share:
                parts.append(
                    self.to_logits(self._alone(batch, k, others)).log_softmax(-1) + np.log(share)
                )
        return torch.stack(parts).logsumexp(0)

    forward = logits

    def save(self, folder: Path) -> None:
        """Refuse: the arrays say who is in which shard, and no plain library would load it.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            "sharded model: is kept in memory only; use a method that gives one adapter, or e2urec compare"
        )

    def _present(self) -> tuple[list[int], list[str]]:
        """Shards that are active and hold a user, and other adapters that are active."""
        now = adapters.active_names(self.lm)
        speaking = [
            k for k, name in enumerate(self.active) if name in now and np.any(self.shard == k)
        ]
        return speaking, [name for name in now if name not in self.active]

    def _alone(self, batch: Batch, k: int, others: Sequence[str]) -> torch.Tensor:
        with adapters.answering_adapters(self.lm, (self.active[k], *others)):
            return super().hidden(batch)

    def _blended(
        self, batch: Batch, blend: Blend, speaking: Sequence[int], others: Sequence[str]
    ) -> torch.Tensor:
        """One pass of the base says where the rows lie, one with all adapters answers."""
        with torch.no_grad(), adapters.answering_adapters(self.lm, ()):
            weights = blend.weights(super().hidden(batch).float(), speaking)
        names = [self.active[k] for k in speaking]
        rows = dict(zip(names, weights.unbind(-1), strict=True))
        with (
            adapters.answering_adapters(self.lm, (*names, *others)),
            adapter_algebra.row_weights(self.lm, rows),
        ):
            return super().hidden(batch)
