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

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..core.arrays import Floats, Ints, Mask
from ..core.errors import ConfigError, DivergenceError
from ..core.seeding import derive, stream
from ..models import adapters
from ..models.activation_cache import ActivationCache, cache_bytes, open_cache
from ..models.adapters import LoRA
from ..models.batches import Examples
from ..models.precision import Precision, autocast
from ..models.predictions import predict
from ..models.recommender import Recommender
from .checkpoints import NO_CHECKPOINTS, Checkpoints
from .costs import Costs
from .loop import fit
from .phase import Phase, Progress, silent
from .state import TrainingState
from .supervised import Tuning, shuffled_plan, supervised, tune

# The adapter's name while a half model is tuned; it is taken off before the next one is put on.
ADAPTER = "half_model"
PHASE = "scores"


class OutOfFold(BaseModel):
    """How out-of-fold scores are made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pairs: int = Field(
        0,
        ge=0,
        le=1000,
        description="pairs of half models, on complementary halves of the users; 0: none",
    )
    tuning: Literal["original", "adapter"] = Field(
        "original",
        description="how half models are tuned: as the original is, for all its epochs, or, which "
        "costs a large model less and tells less, by the adapter of scores.lora",
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
        # No validation rows are read, so there is nothing to be patient about.
        changes: dict[str, Any] = {"patience": None}
        lora = original.lora
        if self.tuning == "adapter":
            changes["learning_rate"] = self.learning_rate
            lora = self.lora
        schedule = original.schedule.model_copy(update=changes)
        return original.model_copy(update={"schedule": schedule, "lora": lora})

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


@dataclass(frozen=True)
class HalfModels:
    """Tunes half models on the base, one after another.

    Attributes:
        base: as a recommender, before any user's data; it is left as it was.
        settings: how many, and how they are tuned.
        original: how the original is tuned.
        seed: of the halves and of each half model.
        costs: told of seconds and rows.
        progress: told of each step.
        scratch: folder for what does not fit into memory meanwhile; None: the system's.
        checkpoints: where it is kept how far a half model is.
    """

    base: Recommender
    settings: OutOfFold
    original: Tuning
    seed: int
    costs: Costs
    progress: Progress = silent
    scratch: Path | None = None
    checkpoints: Checkpoints = NO_CHECKPOINTS

    @property
    def count(self) -> int:
        """Half models, two a pair."""
        return 2 * self.settings.pairs

    def scores(self, train: Examples, outsiders: Mapping[str, Examples]) -> dict[str, RowScores]:
        """Out-of-fold scores of the training rows, and of rows of users whom no model is tuned on.

        An outsider's row is answered by as many half models as a training row, so that the scores
        of both are equally noisy.

        Args:
            train: rows of which each half model sees half of the users.
            outsiders: rows that none of them sees, by name; a part may be empty.

        Returns:
            Scores by name; those of `train` under that name.

        Raises:
            ConfigError: a half model diverged.
        """
        rows = {"train": train, **outsiders}
        inside = self._halves(rows)
        # A half model is not asked about its own rows: those places stay NaN.
        log_odds = {name: np.full(mask.shape, np.nan) for name, mask in inside.items()}
        with self.costs.phase(PHASE), self._cache() as cache:
            cached_rows = {name: self._cached(part, cache) for name, part in rows.items()}
            if cache is not None:
                cache.warn_of_bound("scores.cache_gb")
            for number in range(self.count):
                is_inside = {name: mask[number] for name, mask in inside.items()}
                half = cached_rows["train"].take(np.flatnonzero(is_inside["train"]))
                outside_rows = {}
                for name, part in cached_rows.items():
                    outside_rows[name] = part.take(np.flatnonzero(~is_inside[name]))
                for name, odds in self._answers(number, half, outside_rows).items():
                    log_odds[name][number, ~is_inside[name]] = odds
        return {name: outside_scores(odds, ~inside[name]) for name, odds in log_odds.items()}

    def _halves(self, rows: Mapping[str, Examples]) -> dict[str, Mask]:
        """Which half models count a row as their own, (count, n), by name of the rows."""
        users = np.concatenate([part.users for part in rows.values()])
        inside = halves(users, self.count, seed=self.seed)
        lengths = [len(part) for part in rows.values()]
        edges = np.cumsum(lengths)[:-1]
        parts = np.split(inside, edges, axis=1)
        return dict(zip(rows, parts, strict=True))

    def _answers(
        self, number: int, half: Examples, rows: Mapping[str, Examples]
    ) -> dict[str, Floats]:
        """Tune one half model on `half`; its log-odds on `rows`, by name."""
        phase = Phase(PHASE, derive(self.seed, PHASE, number), self.progress, self.checkpoints)
        answers = {}
        try:
            with self._half_model(half, phase) as (model, active):
                for name, part in rows.items():
                    if not len(part):
                        continue
                    predictions = predict(model, part, active=active, precision=self._precision)
                    self.costs.count_rows(PHASE, len(part))
                    answers[name] = predictions.log_odds
                    self._check(number, predictions.log_odds)
        except DivergenceError as error:
            raise self._divergence(number, "its loss is not finite") from error
        return answers

    @property
    def _tuning(self) -> Tuning:
        return self.settings.tuning_of_halves(self.original)

    @property
    def _precision(self) -> Precision:
        return self._tuning.schedule.precision

    @contextmanager
    def _half_model(
        self, half: Examples, phase: Phase
    ) -> Iterator[tuple[Recommender, tuple[str, ...]]]:
        """A model tuned on `half`, and the adapters that it answers with."""
        lora = self._tuning.lora
        if lora is None:
            model, trace = tune(self.base, self._tuning, half, None, phase)
            self.costs.count_training(PHASE, trace)
            yield model, ()
            return
        base = self.base
        base.lm = adapters.attach(base.lm, ADAPTER, lora, seed=phase.seed)
        try:
            self._tune_adapter(half, phase)
            yield base, (ADAPTER,)
        finally:
            # After an interrupt, too, the base is left as it was.
            base.lm = adapters.remove(base.lm, ADAPTER)

    def _check(self, number: int, log_odds: Floats) -> None:
        """Raise ConfigError where half model `number` answers with what is no number."""
        # One such answer would make the scores of its rows NaN, which means that they have none.
        if not np.isfinite(log_odds).all():
            raise self._divergence(number, "an answer is not finite")

    def _divergence(self, number: int, reason: str) -> ConfigError:
        rate = f"{self._tuning.schedule.learning_rate:g}"
        remedy = f"lower scores.learning_rate, now {rate}"
        if self.settings.tuning == "original":
            remedy = (
                "set scores.tuning=adapter, or train anew at a lower "
                f"tuning.schedule.learning_rate, now {rate}"
            )
        return ConfigError(
            f"scores: half model {number + 1} of {self.count} diverged ({reason}); {remedy}"
        )

    def _tune_adapter(self, half: Examples, phase: Phase) -> None:
        base = self.base
        schedule = self._tuning.schedule
        plan = shuffled_plan(half, schedule.batch_size, phase.seed)
        objective = supervised(base, half)
        with base.using((ADAPTER,), train=ADAPTER) as parameters:
            state = TrainingState.start(parameters, schedule)
            trace = fit(base, state, plan, objective, phase)
        self.costs.count_training(PHASE, trace)

    def _cache(self) -> AbstractContextManager[ActivationCache | None]:
        lora = self._tuning.lora
        if lora is None:
            return nullcontext()
        return open_cache(
            self.base,
            lora.first_block(self.base.lm),
            precision=self._precision,
            max_gb=self.settings.cache_gb,
            folder=self.scratch,
        )

    def _cached(self, rows: Examples, cache: ActivationCache | None) -> Examples:
        if cache is None:
            return rows
        with autocast(self._precision, self.base.device):
            return cache.attach_states(rows, np.arange(len(rows)))


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
