"""A rehearsal: erase groups of training users, each from a copy of the original, and measure all.

The rows of all groups are one set. It is measured against models retrained without all of them
together, which is one retraining in place of one a group.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..core.arrays import Floats, Ints
from ..core.errors import ConfigError
from ..core.seeding import derive, stream
from ..data.requests import ErasureRequest
from ..data.samples import Samples
from ..evaluation.answers import Answers
from ..evaluation.comparison import CellRecord
from ..evaluation.disclosure import ForgetSetFigure, is_told
from ..evaluation.evidence import Evidence
from ..evaluation.pooled import Figures, ForgottenRows, mean_figure, retained_share
from ..evaluation.roles import ORIGINAL, retrained
from ..evaluation.verdict import LEVEL
from ..methods.retrain import Retrain
from ..metrics.bootstrap import Bootstrap, Figure, Interval
from ..models.recommender import Recommender
from ..runs.folder import Run
from ..runs.record import IntervalRecord
from ..runs.rehearsal import MEMORY, RehearsedTrial
from ..unlearning.method import Method
from .grid import FinishedCell, Grid
from .study import NOT_UNLEARNING, Study, Unlearned
from .workspace import Workspace

SECONDS = "total"
UTILITY = "test_auc_to_retrained"


def draw_groups(train: Samples, *, size: int, times: int, seed: int) -> list[Ints]:
    """User codes of `times` disjoint groups of `size` training users each, sorted.

    Raises:
        ConfigError: nobody would be left to retrain on.
    """
    users = np.unique(train.users)
    rehearsed_users = size * times
    if rehearsed_users >= len(users):
        raise ConfigError(
            f"rehearse: --times {times} of --size {size} name {rehearsed_users} of {len(users)} "
            "training users, and a model is retrained on the others; lower one of the two"
        )
    order = stream(seed, "rehearsal").permutation(users)
    return [np.sort(group) for group in np.split(order[:rehearsed_users], times)]


@dataclass
class RehearsalModels:
    """Makes the models of a rehearsal, and asks them about the rows of all its requests.

    Attributes:
        run: whose original forgets, read anew for each request.
        space: its data and base.
        groups: user codes of each request.
        grid: of finished models.
    """

    run: Run
    space: Workspace
    groups: Sequence[Ints]
    grid: Grid

    @cached_property
    def union(self) -> Study:
        """The study of all requests together."""
        return self._study(np.concatenate(self.groups))

    def original(self) -> FinishedCell:
        """What the original says."""
        return self.grid.cell("original", lambda _: self._cell(self._load(self.run), CellRecord()))

    def retrained(self, number: int) -> FinishedCell:
        """A model retrained without the users of all requests."""

        def make(_: object) -> FinishedCell:
            self.space.checkpoints.begin(key)
            unlearned = self.union.unlearn(self._load(self.run), Retrain(number=number))
            return self._cell(unlearned.model, _record(unlearned))

        key = f"retrained-{number}"
        return self.grid.cell(key, make)

    def given(self, number: int, run: Run) -> FinishedCell:
        """The same from a run folder."""

        def make(_: object) -> FinishedCell:
            seconds = {SECONDS: seconds_of(run)}
            return self._cell(self._load(run), CellRecord(seconds=seconds))

        return self.grid.cell(f"given-{number}", make)

    def forgotten(self, place: int, method: Method, number: int) -> FinishedCell:
        """The model that has forgotten one request, as the candidate at `place` makes it."""

        def make(folder: Path) -> FinishedCell:
            self.space.checkpoints.begin(key)
            study = self._study(self.groups[number])
            unlearned = study.unlearn(self._load(self.run), method, scratch=folder)
            return self._cell(unlearned.model, _record(unlearned), study)

        key = f"trial-{place}/request-{number + 1}"
        return self.grid.cell(key, make)

    def _study(self, users: Ints) -> Study:
        # The run's own template and tokenizer, whatever the recipe's file says by now.
        if self.space.prompt_reader is None:
            self._load(self.run)
        request = ErasureRequest.of_users(self.space.split.train, users)
        return Study(self.space, self.space.rows(self.space.resolve(request)))

    def _load(self, run: Run) -> Recommender:
        model = self.space.load(run)
        self.space.prompt_reader = model.prompt_reader
        return model

    def _cell(
        self, model: Recommender, record: CellRecord, study: Study | None = None
    ) -> FinishedCell:
        """What a model says of its own request's D_f, and of rows that no request touches."""
        sets = self.union.rows.evaluation
        if study is not None:
            sets = replace(sets, forget=study.rows.forget)
        precision = self.space.recipe.tuning.schedule.precision
        answers = sets.ask(model, precision=precision)
        return FinishedCell(_without_states(answers), record)


def _record(unlearned: Unlearned) -> CellRecord:
    return CellRecord(seconds={SECONDS: unlearned.seconds})


def _without_states(answers: Answers) -> Answers:
    # States would tell most of D_f, and no figure here needs them.
    return replace(answers, forget=replace(answers.forget, hidden=None))


def seconds_of(run: Run) -> float:
    """What the request of a run took, without loading and logging."""
    phases = run.record.seconds.items()
    return sum(seconds for phase, seconds in phases if phase not in NOT_UNLEARNING)


@dataclass(frozen=True)
class RehearsalFigures:
    """Figures of a rehearsal, from what all models said.

    Attributes:
        groups: user codes of each request.
        evidence: original and retrained models on the rows of all requests.
    """

    groups: Sequence[Ints]
    evidence: Evidence

    @classmethod
    def of(
        cls, models: RehearsalModels, original: FinishedCell, references: Sequence[FinishedCell]
    ) -> "RehearsalFigures":
        """Those of a rehearsal; `references` are the retrained models."""
        answers = {ORIGINAL: original.answers}
        for number, cell in enumerate(references, start=1):
            answers[retrained(number)] = cell.answers
        rows = models.union.rows
        evidence = Evidence(
            answers,
            seed=models.space.recipe.seed,
            difficulty=rows.difficulty.take(rows.retain_sample),
        )
        return cls(models.groups, evidence)

    @property
    def users(self) -> int:
        """Number of users of all requests."""
        return self.evidence.forget_users

    @property
    def rows(self) -> int:
        """Number of rows of D_f of all requests."""
        return len(self.evidence.original.forget.labels)

    def headroom(self) -> IntervalRecord | None:
        """What there was to forget, in AUC."""
        before = self.evidence.knowledge("auc")[ORIGINAL]
        after = self.evidence.knowledge_after_retraining("auc")
        return _kept(self.evidence.forget_interval(before - after))

    def attack(self) -> IntervalRecord | None:
        """AUC of an attack by loss on the original, beyond that on the first retrained model."""
        return _kept(self.evidence.attacks(ORIGINAL)["loss"]["auc_beyond"])

    def trial(self, method: Method, cells: Sequence[FinishedCell]) -> RehearsedTrial:
        """The figures of one candidate; `cells` has its model of each request."""
        forget = self.evidence.bootstraps["forget"]
        rows = self._forgotten_rows(cells)
        seed = derive(self.evidence.seed, "seeds")
        pooled = rows.figures(forget, seed=seed)
        # Of a single user there is nothing within that the user's own rows would not tell.
        if max(len(group) for group in self.groups) > 1:
            pooled |= rows.within_figures(forget, seed=seed)
        figures = {name: forget.interval(figure) for name, figure in pooled.items()}
        figures |= self._intervals("test", self._utility(cells))
        figures |= self._intervals("retain", self._retained(cells))
        return RehearsedTrial(
            settings=method.model_dump(mode="json"),
            figures=dict(_records(figures)),
            gate=_kept(forget.interval(pooled[MEMORY], LEVEL)),
            seconds=statistics.median(cell.record.seconds[SECONDS] for cell in cells),
        )

    def _intervals(self, part: str, figures: Figures) -> dict[str, Interval]:
        bootstrap = self.evidence.bootstraps[part]
        return {name: bootstrap.interval(figure) for name, figure in figures.items()}

    def _forgotten_rows(self, cells: Sequence[FinishedCell]) -> ForgottenRows:
        """The rows of all requests, in the order of their union."""
        original = self.evidence.original.forget
        candidate = np.empty_like(original.log_odds)
        request = np.zeros(len(original.labels), int)
        for number, (group, cell) in enumerate(zip(self.groups, cells, strict=True)):
            # A user's prompts show nobody else, so a request has the same rows alone as in the
            # union, and in the same order.
            is_own = np.isin(original.users, group)
            answers = cell.answers.forget
            assert np.array_equal(answers.users, original.users[is_own]), "rows of another request"
            candidate[is_own] = answers.log_odds
            request[is_own] = number
        odds: list[Floats] = []
        for role in self.evidence.retrained:
            odds.append(self.evidence.models[role].forget.log_odds)
        return ForgottenRows(
            labels=original.labels,
            users=original.users,
            candidate=candidate,
            original=original.log_odds,
            retrained=np.stack(odds),
            request=request,
        )

    def _utility(self, cells: Sequence[FinishedCell]) -> Figures:
        """Test AUC, the mean over requests, and what it is beyond that of the references."""
        test = self.evidence.bootstraps["test"]
        auc = _mean_auc(test, [cell.answers for cell in cells], "test")
        figures = self.evidence.figures
        reference = mean_figure(figures[role]["auc"] for role in self.evidence.retrained)
        return {
            "test_auc": auc,
            "test_auc_to_original": auc - figures[ORIGINAL]["auc"],
            UTILITY: auc - reference,
        }

    def _retained(self, cells: Sequence[FinishedCell]) -> Figures:
        """AUC on D_r, the mean over requests, and the share of the memory of it."""
        retain = self.evidence.bootstraps["retain"]
        figures = {
            "retain_auc": _mean_auc(retain, [cell.answers for cell in cells], "retain"),
            "retain_auc_original": self.evidence.figures[ORIGINAL]["retain_auc"],
            "never": self.evidence.never_tuned_auc,
        }
        return figures | {"retained_memory": retained_share(figures)}


def _mean_auc(bootstrap: Bootstrap, answers: Sequence[Answers], part: str) -> Figure:
    aucs = []
    for model in answers:
        rows = model.parts()[part]
        aucs.append(bootstrap.auc(rows.labels, rows.log_odds))
    return mean_figure(aucs)


def _records(figures: dict[str, Interval]) -> Iterator[tuple[str, IntervalRecord]]:
    """What is written of the figures: those that exist, of rows enough."""
    for name, figure in figures.items():
        record = _kept(figure)
        if record is not None:
            yield name, record


def _kept(figure: Interval) -> IntervalRecord | None:
    """The record of a figure, rounded; None where it does not exist, or rests on too few rows."""
    if not is_told(figure.n) or not np.isfinite(figure.value):
        return None
    return IntervalRecord.of(ForgetSetFigure.of(figure))


def choose_trial(trials: Sequence[RehearsedTrial], tolerance: float) -> int | None:
    """The place of the trial with the least |M_auc| of those that keep their test AUC.

    These surely lose no more than `tolerance` of it to a retrained model (95%). None: there is no
    such trial, or none of which the memory is bounded.
    """
    distances = {}
    for place, trial in enumerate(trials):
        memory = trial.figures.get(MEMORY)
        utility = trial.figures.get(UTILITY)
        if memory is None or utility is None or memory.interval.low == -np.inf:
            continue
        if utility.interval.low >= -tolerance:
            distances[place] = abs(memory.interval.value)
    # Of two alike the first wins: min keeps the order in which candidates were named.
    return min(distances, key=lambda place: distances[place], default=None)
