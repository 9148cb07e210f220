"""Half models: each is tuned on half of the users, and answers the rows of the others.

The models themselves are not kept; `training/out_of_fold.py` says what becomes of their answers.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.arrays import Floats, Mask
from ..core.errors import DivergenceError, ScoresError
from ..core.seeding import derive
from ..models import adapters
from ..models.activation_cache import ActivationCache, open_cache
from ..models.batches import Examples
from ..models.precision import Precision, autocast
from ..models.predictions import predict
from ..models.recommender import Recommender
from .checkpoints import NO_CHECKPOINTS, Checkpoints
from .costs import Costs
from .loop import fit
from .out_of_fold import PHASE, OutOfFold, RowScores, halves, outside_scores
from .phase import Phase, Progress, silent
from .state import TrainingState
from .supervised import Tuning, monitor_of, shuffled_plan, supervised, tune

# The adapter's name while a half model is tuned; it is taken off before the next one is put on.
ADAPTER = "half_model"
WITHOUT = "do without by scores.pairs=0"


@dataclass(frozen=True)
class HalfModels:
    """Tunes half models on the base, one after another.

    Attributes:
        base: as a recommender, before any user's data; it is left as it was.
        settings: how many, and how they are tuned.
        original: how the original is tuned.
        valid: rows by which the original stopped early, and half models tuned as it was do; None:
            they go on for all epochs.
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
    valid: Examples | None = None
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
            ScoresError: a half model diverged, or has no row to be tuned on.
        """
        rows = {"train": train, **outsiders}
        inside = self._halves(rows)
        # Of a handful of users, all those of a half may have nothing but held-out rows.
        if not inside["train"].any(axis=1).all():
            raise ScoresError(
                f"scores: half of the users have no training row among them; {WITHOUT}, or give "
                "data of more users"
            )
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
            model, trace = tune(self.base, self._tuning, half, self.valid, phase)
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
        """Raise ScoresError where half model `number` answers with what is no number."""
        # One such answer would make the scores of its rows NaN, which means that they have none.
        if not np.isfinite(log_odds).all():
            raise self._divergence(number, "an answer is not finite")

    def _divergence(self, number: int, reason: str) -> ScoresError:
        rate = f"{self._tuning.schedule.learning_rate:g}"
        remedy = f"lower scores.learning_rate, now {rate}"
        if self.settings.tuning == "original":
            remedy = (
                "set scores.tuning=adapter, or train anew at a lower "
                f"tuning.schedule.learning_rate, now {rate}"
            )
        return ScoresError(
            f"scores: half model {number + 1} of {self.count} diverged ({reason}); {remedy}, or "
            f"{WITHOUT}"
        )

    def _tune_adapter(self, half: Examples, phase: Phase) -> None:
        base = self.base
        schedule = self._tuning.schedule
        plan = shuffled_plan(half, schedule.batch_size, phase.seed)
        objective = supervised(base, half)
        with base.using((ADAPTER,), train=ADAPTER) as parameters:
            state = TrainingState.start(parameters, schedule)
            monitor = monitor_of(base, self.valid, schedule, (ADAPTER,))
            trace = fit(base, state, plan, objective, phase, monitor)
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
