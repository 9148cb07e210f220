"""Choose the settings of each method on a development request (method, section 5)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...data.samples import Samples
from ...evaluation.answers import Answers
from ...evaluation.disclosure import rounded_values
from ...evaluation.roles import ORIGINAL, Role
from ...methods import all_methods
from ...metrics.classification import auc
from ...unlearning.method import unread_differences
from ..grid import FinishedCell
from ..study import Study
from .plan import ComparisonPlan, Settings
from .seed_models import SeedModels


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and what they scored.

    Attributes:
        method: whose.
        number: of the trial, counted from 0; 0 are the method's own settings.
        settings: on top of the method's defaults.
        memory_auc: M_auc on the development request.
        valid_auc: AUC on validation rows.
        tolerable: whether that is at most the recipe's tolerance below the original's.
        exact: whether nothing of D_f is left by construction.
    """

    method: str
    number: int
    settings: Settings
    memory_auc: float
    valid_auc: float
    tolerable: bool
    exact: bool

    @property
    def rank(self) -> tuple[bool, float]:
        """Least is best: the least |M_auc| of the tolerable ones, else the best validation AUC."""
        # How far an exact method is from a retrained model says how it is built, not what it knows.
        if self.tolerable and not self.exact:
            return False, abs(self.memory_auc)
        return not self.tolerable, -self.valid_auc

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "method": self.method,
            "trial": self.number,
            "settings": self.settings,
            "memory_auc": rounded_values(self.memory_auc),
            "valid_auc": self.valid_auc,
        }


def choose(plan: ComparisonPlan, models: SeedModels) -> tuple[dict[str, Settings], list[Trial]]:
    """The settings of each method, and what every trial scored.

    A method's settings are those of the trial with the least |M_auc| on the development request.
    Trials that cost more validation AUC than the recipe tolerates count only if all of them do. Of
    an exact method, the trial with the best validation AUC is taken. No test row is read.
    """
    settings = {name: trials[0] for name, trials in plan.trials.items()}
    cells = plan.development()
    if not cells:
        return settings, []
    study = development_study(plan, models)
    for sentence in unread_sentences(plan, len(study.rows.forget)):
        models.grid.say(sentence)
    references: dict[Role, Answers] = {}
    # References come first in the plan: a trial is measured against all of them.
    for cell in cells:
        if cell.trial is None:
            reference = models.finish(cell, study, {})
            assert reference is not None, "a reference that cannot be made is an error"
            references[cell.role] = reference.answers
    scale = _Scale.of(references, plan.recipe.compare.tolerance)
    trials: list[Trial] = []
    for cell in cells:
        if cell.trial is None:
            continue
        name = cell.role.name
        trial_settings = plan.trials[name][cell.trial]
        finished = models.finish(cell, study, plan.tried(cell))
        if finished is not None:
            trials.append(scale.trial(name, cell.trial, trial_settings, finished))
    return settings | _best_settings(trials), trials


def unread_sentences(plan: ComparisonPlan, forget: int) -> Iterator[str]:
    """Of methods whose trials differ in what a development request of so many rows does not read.

    Trials that differ in these settings alone are one and the same.
    """
    for name, trials in plan.trials.items():
        names = unread_differences([plan.method(name, settings) for settings in trials], forget)
        if names:
            yield (
                f"method '{name}': its trials differ in {', '.join(names)}, which a development "
                f"request of {forget} rows does not read; nothing is chosen of that, unless "
                "compare.development.ratio is raised"
            )


def development_study(plan: ComparisonPlan, models: SeedModels) -> Study:
    """The study of the development request; raises ConfigError as `users_without_request` does."""
    # Other users than any reported request: settings must not be chosen on what is reported.
    development = plan.recipe.compare.development
    return models.study(development, users_without_request(plan, models))


def _best_settings(trials: list[Trial]) -> dict[str, Settings]:
    """The settings of the best trial of each method that has one."""
    best: dict[str, Trial] = {}
    for trial in trials:
        leader = best.get(trial.method)
        # Of equals the first stays: the method's own settings before any drawn ones.
        if leader is None or trial.rank < leader.rank:
            best[trial.method] = trial
    return {name: trial.settings for name, trial in best.items()}


@dataclass(frozen=True)
class _Scale:
    """What trials are measured by.

    Attributes:
        before: AUC of the original on D_f.
        after: mean AUC of the retrained models on D_f.
        min_valid_auc: validation AUC below which a trial costs too much.
    """

    before: float
    after: float
    min_valid_auc: float

    @classmethod
    def of(cls, references: Mapping[Role, Answers], tolerance: float) -> "_Scale":
        """The scale of the development request; raises ConfigError where it has no headroom."""
        original = references[ORIGINAL]
        retrained = [answers for role, answers in references.items() if role != ORIGINAL]
        after = [_auc(answers, "forget") for answers in retrained]
        before = _auc(original, "forget")
        if before == np.mean(after):
            raise ConfigError(
                "compare.development: the original knows these rows as well as retrained models do "
                f"(AUC {before:.3f}), so no settings can be chosen by them; give it another seed "
                "or a larger ratio"
            )
        return cls(
            before=before,
            after=float(np.mean(after)),
            min_valid_auc=_auc(original, "valid") - tolerance,
        )

    def trial(self, name: str, number: int, settings: Settings, cell: FinishedCell) -> Trial:
        """What a trial scored."""
        headroom = self.before - self.after
        memory_auc = (_auc(cell.answers, "forget") - self.after) / headroom
        valid_auc = _auc(cell.answers, "valid")
        tolerable = valid_auc >= self.min_valid_auc
        exact = all_methods()[name].exact
        return Trial(name, number, settings, memory_auc, valid_auc, tolerable, exact)


def _auc(answers: Answers, part: str) -> float:
    rows = answers.parts()[part]
    return auc(rows.labels, rows.log_odds)


def users_without_request(plan: ComparisonPlan, models: SeedModels) -> Samples:
    """Training rows of users (or items) that no reported request names.

    Raises:
        ConfigError: there are none.
    """
    train = models.space.split.train
    data = train.interactions
    masks = [models.parts(request).erased for request in plan.requests.values()]
    erased = np.logical_or.reduce(masks)
    unit = plan.recipe.compare.development.unit
    columns = {"users": data.user, "items": data.item, "interactions": np.arange(len(data))}
    column = columns[unit]
    free = train.take(~np.isin(column[train.rows], column[erased]))
    if not len(free):
        raise ConfigError(
            f"compare.development: every one of the {unit} is in a request that is reported; "
            "forget less, or set compare.trials = 1"
        )
    return free
