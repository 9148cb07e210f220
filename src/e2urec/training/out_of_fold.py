"""Out-of-fold scores: what models that never saw a row say of it.

Half models are tuned in pairs, on complementary halves of the users. Each row is then answered by
the half models that did not see it, and the mean of their log-odds is its score. The half models
themselves are not kept. (SELENA, Tang et al. 2022, distils such answers as a defence; here they
teach a model to forget.)

Half models are tuned as the original was. What sets the original apart from one that is tuned
otherwise is no memory, and a score would show it all the same. For a large model adapters on its
upper blocks cost less; what the blocks below an adapter compute is the same for all half models, so
it is computed once for each row.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..core.arrays import Floats, Ints, Mask
from ..core.seeding import stream
from ..models.activation_cache import cache_bytes
from ..models.adapters import LoRA
from ..models.recommender import Recommender
from .supervised import Tuning

PHASE = "scores"


class OutOfFold(BaseModel):
    """How out-of-fold scores are made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pairs: int = Field(
        2,
        ge=0,
        le=1000,
        description="pairs of half models, on complementary halves of the users, each pair at the "
        "cost of the original; 0: none, and small requests forget less",
    )
    tuning: Literal["original", "adapter"] = Field(
        "original",
        description="how half models are tuned: as the original is, or, which costs a large model "
        "less and tells less, by the adapter of scores.lora",
    )
    # An adapter learns at rates that would ruin a fully tuned model.
    learning_rate: float = Field(
        2e-3, gt=0, description="highest learning rate of a half model with tuning = adapter"
    )
    lora: LoRA = Field(
        LoRA(targets="all", upper=0.5),
        description="adapter of a half model with tuning = adapter",
    )
    cache_gb: float = Field(
        16.0,
        ge=0,
        description="most disk space for what the blocks below the adapters compute, in GB; "
        "further rows are not cached",
    )

    @model_validator(mode="before")
    @classmethod
    def _adapter_is_meant(cls, values: Any) -> Any:
        """Settings of the adapter alone ask for it, as in records of runs that had nothing else."""
        is_named = isinstance(values, dict) and values.get("pairs") and "tuning" not in values
        if is_named and ("learning_rate" in values or "lora" in values):
            return values | {"tuning": "adapter"}
        return values

    @model_validator(mode="after")
    def _adapter_is_read(self) -> Self:
        if self.tuning == "original":
            for name in ("learning_rate", "lora"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"scores.{name} is read with scores.tuning = 'adapter' alone; set that, or "
                        f"leave scores.{name} out"
                    )
        return self

    def tuning_of_halves(self, original: Tuning) -> Tuning:
        """How half models are tuned: as the original, or by an adapter at a rate of its own."""
        if self.tuning == "original":
            return original
        # Validation rows say when the original is done, and nothing of another way to tune.
        changes = {"patience": None, "learning_rate": self.learning_rate}
        schedule = original.schedule.model_copy(update=changes)
        return original.model_copy(update={"schedule": schedule, "lora": self.lora})

    def cache_bytes(self, base: Recommender, token_count: int, original: Tuning) -> int:
        """Bytes on the disk while the scores are made, of rows with so many tokens."""
        tuning = self.tuning_of_halves(original)
        if tuning.lora is None:
            return 0
        return cache_bytes(
            base,
            tuning.lora.first_block(base.lm),
            token_count,
            precision=tuning.schedule.precision,
            max_gb=self.cache_gb,
        )

    def row_count(self, train: int, outsiders: int, epochs: int) -> int:
        """Rows that are read to make the scores: what they cost."""
        # The halves of a pair make a whole: it tunes on each row `epochs` times, and answers once.
        answers = train + outsiders
        return self.pairs * (epochs * train + answers)


@dataclass(frozen=True)
class RowScores:
    """Out-of-fold scores of some rows.

    Attributes:
        mean: (n,) mean log-odds over the half models that did not see the row.
        spread: (n,) their standard deviation; NaN where there is only one.
    """

    mean: Floats
    spread: Floats

    @property
    def present(self) -> Mask:
        """(n,) False for a row that has no score, which is NaN then."""
        return np.isfinite(self.mean)

    def take(self, index: Ints) -> "RowScores":
        """The scores at `index` (positions)."""
        return RowScores(self.mean[index], self.spread[index])


def halves(users: Ints, count: int, *, seed: int) -> Mask:
    """On whose rows each half model is tuned: (count, n) for the users (n,) of rows.

    Lines 2j and 2j + 1 complement each other.
    """
    # Users whole: a half model that saw one row of a user is no outsider to the others.
    ids, user = np.unique(users, return_inverse=True)
    random = stream(seed, "halves")
    lines = []
    for _ in range(count // 2):
        inside = np.zeros(len(ids), dtype=bool)
        half = random.permutation(len(ids))[: len(ids) // 2]
        inside[half] = True
        lines += [inside, ~inside]
    by_user = np.stack(lines)
    return by_user[:, user]


def outside_scores(log_odds: Floats, outside: Mask) -> RowScores:
    """Mean and spread over the models that did not see a row.

    Args:
        log_odds: (models, n); what stands where a model saw a row does not matter.
        outside: (models, n) True where a model did not see a row; as many for each row.
    """
    counts = outside.sum(0)
    totals = np.where(outside, log_odds, 0.0).sum(0)
    mean = totals / counts
    squares = np.where(outside, log_odds - mean, 0.0) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(squares.sum(0) / (counts - 1))
    return RowScores(mean.astype(np.float32), spread.astype(np.float32))
