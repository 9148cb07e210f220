"""What an evaluation has to go by: the answers of every model, and what all measures share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..core.arrays import Floats, Ints, Mask
from ..core.seeding import derive
from ..data.difficulty import COEFFICIENT, Difficulty
from ..metrics.bootstrap import Bootstrap, Figure, Interval, over_seeds, remaining, user_bootstrap
from .answers import Answers
from .attacks import AttackSetup
from .pooled import ForgottenRows, PooledBasis
from .roles import ORIGINAL, Role, RoleKind
from .shadows import ShadowScores
from .verdict import Margins

# Rows that figures are computed on; validation rows only serve to fit a temperature.
SETS = ("test", "forget", "unseen", "retain", "rewritten")
# In the order in which tables list them.
UTILITY = ("auc", "gauc", "accuracy", "log_loss", "ece")


@dataclass(frozen=True)
class Evidence:
    """The models of one request, and how their answers are resampled.

    Attributes:
        models: answers of each model: the original, unlearned models, placebos, retrained models.
        seed: of the user-clustered bootstrap.
        resamples: of the bootstrap; all figures on the same rows share them.
        twin: answers of an original of another seed.
        shadows: answers of models that never saw D_f, for membership inference. Without retrained
            models the verdict rests on them.
        slices: masks over the test rows by name, for the collateral damage.
        difficulty: of the rows of D_r that models answer, and of the unseen users' rows.
        relearning: steps that each model takes to relearn D_f.
        margins: of the verdict.
        rehearsal: what is known of requests like this one; it counts where this one is too small.
        is_of_singles: whether each user of D_f was a request of her own, with a model of its own.
    """

    models: Mapping[Role, Answers]
    seed: int
    resamples: int = 2000
    twin: Answers | None = None
    shadows: ShadowScores | None = None
    slices: Mapping[str, Mask] = field(default_factory=dict)
    difficulty: Difficulty | None = None
    relearning: Mapping[Role, Figure] = field(default_factory=dict)
    margins: Margins = field(default_factory=Margins)
    rehearsal: PooledBasis | None = None
    is_of_singles: bool = False

    @property
    def original(self) -> Answers:
        """The original's answers."""
        return self.models[ORIGINAL]

    @cached_property
    def retrained(self) -> list[Role]:
        """The retrained models, by number."""
        numbers = {}
        for role in self.models:
            if role.kind is RoleKind.RETRAINED:
                numbers[role.number] = role
        return [numbers[number] for number in sorted(numbers)]

    @property
    def knows_retained_rows(self) -> bool:
        """Whether all models answered rows of D_r, and it is known how hard these are."""
        return self.knows("retain") and self.difficulty is not None

    def knows(self, part: str) -> bool:
        """Whether all models answered a set of rows."""
        # An interrupted comparison may hold answers from before these rows were asked for.
        return all(part in answers.parts() for answers in self.models.values())

    @cached_property
    def candidates(self) -> list[Role]:
        """The models that are judged."""
        # A model before tuning knows nothing of anybody: there is nothing that it could forget.
        judged = (RoleKind.UNLEARNED, RoleKind.PLACEBO)
        return [role for role in self.models if role.kind in judged]

    # The first line of every figure is its value on the rows themselves; the other lines are its
    # values in resamples of users. Figures of the same rows are paired line by line.

    @cached_property
    def bootstraps(self) -> dict[str, Bootstrap]:
        """Resamples of users for each set of rows."""
        parts = self.original.parts()
        bootstraps = {}
        for name in SETS:
            if name in parts:
                bootstraps[name] = self.bootstrap(name, parts[name].users)
        return bootstraps

    def bootstrap(self, name: str, users: Ints) -> Bootstrap:
        """Resamples of the users of some rows; `name` is that of their random stream."""
        # Each set of rows draws its own users: figures of two sets are independent.
        seed = derive(self.seed, "bootstrap", name)
        return user_bootstrap(users, resamples=self.resamples, seed=seed)

    @cached_property
    def figures(self) -> dict[Role, dict[str, Figure]]:
        """Utility on test rows, AUC and log loss on D_f and on the unseen users, AUC on D_r."""
        figures = {}
        for role, answers in self.models.items():
            figures[role] = self._figures(answers)
        return figures

    def _figures(self, answers: Answers) -> dict[str, Figure]:
        test = answers.test
        bootstraps = self.bootstraps
        figures = bootstraps["test"].utility(test.labels, test.log_odds)
        forget = answers.forget
        figures["forget_auc"] = bootstraps["forget"].auc(forget.labels, forget.log_odds)
        figures["forget_log_loss"] = bootstraps["forget"].log_loss(forget.labels, forget.log_odds)
        unseen = answers.unseen
        figures["unseen_auc"] = bootstraps["unseen"].auc(unseen.labels, unseen.log_odds)
        figures["unseen_log_loss"] = bootstraps["unseen"].log_loss(unseen.labels, unseen.log_odds)
        retain = answers.retain
        if retain is not None and "retain" in bootstraps:
            figures["retain_auc"] = bootstraps["retain"].auc(retain.labels, retain.log_odds)
        return figures

    def knowledge(self, measure: str) -> dict[Role, Figure]:
        """What each model knows of D_f, by `auc` or by `loss`; more is more."""
        knowledge = {}
        for role, figures in self.figures.items():
            if measure == "auc":
                knowledge[role] = figures["forget_auc"]
            else:
                # A lower loss means that more is known.
                knowledge[role] = -figures["forget_log_loss"]
        return knowledge

    def knowledge_after_retraining(self, measure: str) -> Figure:
        """The mean of that over the retrained models, with the noise of their seeds."""
        # A mean over seeds: one retrained model alone carries the noise of its seed.
        knowledge = self.knowledge(measure)
        figures = [knowledge[role] for role in self.retrained]
        seed = derive(self.seed, "seeds")
        return over_seeds(figures, seed=seed)

    @property
    def forget_users(self) -> int:
        """Number of users with rows in D_f."""
        _, user_count = self.bootstraps["forget"].counts.shape
        return int(user_count)

    def forget_interval(self, figure: Figure) -> Interval:
        """The interval of a figure over D_f."""
        return self.bootstraps["forget"].interval(figure)

    def memory(self, role: Role, measure: str = "auc") -> Figure:
        """The share that a model has kept of what the original knows of D_f."""
        knowledge = self.knowledge(measure)
        after = self.knowledge_after_retraining(measure)
        return remaining(knowledge[role], knowledge[ORIGINAL], after)

    def memory_within(self, role: Role) -> Figure:
        """The same of the mean AUC of users, where each had a model of her own."""
        forget = self.original.forget
        rows = ForgottenRows(
            labels=forget.labels,
            users=forget.users,
            candidate=self.models[role].forget.log_odds,
            original=forget.log_odds,
            retrained=np.stack([self.models[other].forget.log_odds for other in self.retrained]),
            request=forget.users,
        )
        seed = derive(self.seed, "seeds")
        return rows.within_figures(self.bootstraps["forget"], seed=seed)["memory_within"]

    def retained_share(self, role: Role) -> Figure:
        """The share that a model has kept of what the original knows of D_r."""
        figure = self.figures[role]["retain_auc"]
        before = self.figures[ORIGINAL]["retain_auc"]
        return remaining(figure, before, self.never_tuned_auc)

    def forget_share(self, figure: Figure, before: Figure, after: Figure) -> Interval:
        """The interval of `(figure − after) / (before − after)` over D_f; see `remaining`."""
        return self.forget_interval(remaining(figure, before, after))

    # --- attacks on membership, each model attacked once

    @cached_property
    def _attacks(self) -> dict[Role, dict[str, dict[str, Interval]]]:
        return {}

    def attacks(self, role: Role) -> dict[str, dict[str, Interval]]:
        """How well each membership attack tells D_f from the unseen users, on one model."""
        # The verdict, the table of membership and PrivLeak all ask for the same attacks.
        if role not in self._attacks:
            model = self.models[role]
            self._attacks[role] = self._attack_setup.attack(model)
        return self._attacks[role]

    @cached_property
    def _attack_setup(self) -> AttackSetup:
        control = None
        if self.retrained:
            control = self.models[self.retrained[0]]
        seed = derive(self.seed, "attacks")
        return AttackSetup(self.shadows, control, seed, self.resamples)

    @cached_property
    def never_tuned_auc(self) -> Figure:
        """AUC on D_r of a model that was never tuned on its users, estimated.

        `AUC_unseen(o) + b·[AUC_Dr(c) − AUC_unseen(c)]`, c the control model of `data.difficulty`.
        """
        control = self.difficulty
        assert control is not None, "what a measure needs is there"
        # One group of users may be easier than another for anybody. The control model sees by how
        # much, and remembers neither.
        parts = self.original.parts()
        retain = self.bootstraps["retain"].auc(parts["retain"].labels, control.retain)
        unseen_odds = control.outsiders["unseen"]
        unseen = self.bootstraps["unseen"].auc(parts["unseen"].labels, unseen_odds)
        return self.figures[ORIGINAL]["unseen_auc"] + COEFFICIENT * (retain - unseen)

    # --- changes on D_f, each pair of models correlated once

    @cached_property
    def _correlations(self) -> dict[frozenset[Role], Figure]:
        return {}

    def correlation(self, role: Role, other: Role) -> Figure:
        """`corr(δ_role − δ_o, δ_other − δ_o)`, δ the log-odds of Yes against No, o the original."""
        # Rows and note of a table both ask.
        pair = frozenset((role, other))
        if pair not in self._correlations:
            changes = self._change(role), self._change(other)
            self._correlations[pair] = self.bootstraps["forget"].correlation(*changes)
        return self._correlations[pair]

    def _change(self, role: Role) -> Floats:
        # In float64 before the difference is taken: models answer in float32.
        odds = self.models[role].forget.log_odds.astype(np.float64)
        return odds - self.original.forget.log_odds

    # --- distances on D_f, each pair of models measured once

    @cached_property
    def _distances(self) -> dict[frozenset[Role], dict[str, Figure]]:
        return {}

    def distances(self, role: Role, other: Role) -> dict[str, Figure]:
        """Mean distances between the answers of two models, by measure."""
        # A distance has no direction, and over 49,152 tokens it is the dearest figure here.
        pair = frozenset((role, other))
        if pair not in self._distances:
            answers = self.models[role].forget
            other_answers = self.models[other].forget
            rows = answers.distances(other_answers)
            bootstrap = self.bootstraps["forget"]
            figures = {name: bootstrap.mean(values) for name, values in rows.items()}
            self._distances[pair] = figures
        return self._distances[pair]

    def distances_to_retrained(self, role: Role) -> dict[str, Figure]:
        """Mean distances between a model and the retrained models other than itself."""
        references = [other for other in self.retrained if other != role]
        if not references:
            return {}
        return mean_figures([self.distances(role, other) for other in references])

    @cached_property
    def noise_floor(self) -> dict[str, Figure]:
        """Mean distances between two retrained models."""
        # Every pair once: with three retrained models there are three, with two there is one.
        pairs = []
        for number, role in enumerate(self.retrained):
            for other in self.retrained[number + 1 :]:
                pairs.append(self.distances(role, other))
        return mean_figures(pairs)


def mean_figures(rows: list[dict[str, Figure]]) -> dict[str, Figure]:
    """The mean of each figure that all rows have."""
    # A softened model has distances of its two answers alone, and none over the vocabulary.
    shared = set(rows[0]).intersection(*rows)
    means = {}
    for name in rows[0]:
        if name in shared:
            values = [row[name] for row in rows]
            means[name] = np.mean(values, axis=0)
    return means
