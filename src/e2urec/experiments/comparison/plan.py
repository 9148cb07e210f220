"""The plan of a comparison: every cell once.

Running, resuming, estimating and reporting all walk this list.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.errors import ConfigError, did_you_mean
from ...core.seeding import stream
from ...evaluation.roles import ORIGINAL, PLACEBO_RETAIN, Role, retrained, unlearned_by
from ...methods import all_methods, build
from ...unlearning.method import Method
from ..recipe import DrawnRequest, Recipe, preset_for

DEVELOPMENT = 0
"""Number of the request on which settings are chosen; those that are reported count from 1."""
PLACEBO = "finetune"
"""The method that is placebo (ii): it is in every table, and no method to compare."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One model of a comparison, asked about the rows of one request.

    Attributes:
        seed: of the original.
        request: its number.
        role: of the model.
        trial: which of the settings of its method, on the development request.
    """

    seed: int
    request: int
    role: Role
    trial: int | None = None

    @property
    def key(self) -> str:
        """Name of its folder."""
        if self.request == DEVELOPMENT:
            trial = "" if self.trial is None else f"-trial-{self.trial}"
            return f"development/{self.role.key}{trial}"
        return f"{seed_folder(self.seed)}/request-{self.request}/{self.role.key}"


def seed_folder(seed: int) -> str:
    """Name of the folder of all cells of one seed."""
    return f"seed-{seed}"


def model_key(seed: int) -> str:
    """Name of the folder of the original of one seed."""
    return f"{seed_folder(seed)}/model"


@dataclass(frozen=True)
class ComparisonPlan:
    """All cells of a comparison.

    Attributes:
        recipe: what is compared.
        presets: of each method.
        trials: settings to try by method, on top of the preset; with one there is nothing to
            choose.
    """

    recipe: Recipe
    presets: Mapping[str, str]
    trials: Mapping[str, list[Settings]]

    @classmethod
    def of(cls, recipe: Recipe) -> "ComparisonPlan":
        """The plan of a recipe.

        Raises:
            ConfigError: an unknown method or setting, more trials than a method has settings, or
                trials without retrained models.
        """
        compare = recipe.compare
        methods = all_methods()
        for part in ("settings", "presets"):
            for name in getattr(compare, part):
                if name not in methods:
                    hint = did_you_mean(name, list(methods))
                    raise ConfigError(f"compare.{part}: unknown method '{name}'{hint}")
        # M_auc is what trials are ranked by, and it needs a retrained model.
        if compare.trials > 1 and not recipe.retrained:
            raise ConfigError(
                "compare.trials: settings are chosen against retrained models; set retrained to 1 "
                "or more"
            )
        names = compare.methods
        if not names:
            names = tuple(name for name in methods if name != PLACEBO)
        presets = {name: _preset(recipe, name) for name in names}
        return cls(recipe, presets, _trials_by_method(recipe, presets))

    @property
    def special_presets(self) -> dict[str, str]:
        """The presets that are not the default, by method."""
        return {name: preset for name, preset in self.presets.items() if preset != "default"}

    def method(self, name: str, settings: Settings | None = None) -> Method:
        """A method with settings on top of its preset; by default those of its first trial."""
        values = self.trials[name][0] if settings is None else settings
        return build(name, values, self.presets[name])

    def tried(self, cell: Cell) -> dict[str, Method]:
        """The method of a trial with the settings that are tried; none where a cell is no trial."""
        if cell.trial is None:
            return {}
        name = cell.role.name
        return {name: self.method(name, self.trials[name][cell.trial])}

    @property
    def references(self) -> list[Role]:
        """The original and the retrained models, against which all others are measured."""
        roles = [ORIGINAL]
        for number in range(1, self.recipe.retrained + 1):
            roles.append(retrained(number))
        return roles

    @property
    def requests(self) -> dict[int, DrawnRequest]:
        """The requests that are reported, by number."""
        return dict(enumerate(self.recipe.compare.requests, start=1))

    @property
    def is_chosen(self) -> bool:
        """Whether settings of methods are chosen on the development request."""
        return self.recipe.compare.trials > 1

    def development(self) -> list[Cell]:
        """The cells from which settings are chosen, all of the first seed; none where none are."""
        if not self.is_chosen:
            return []
        seed = self.recipe.compare.seeds[0]
        cells = [Cell(seed, DEVELOPMENT, role) for role in self.references]
        for name, trials in self.trials.items():
            if len(trials) > 1:
                role = unlearned_by(name)
                cells += [Cell(seed, DEVELOPMENT, role, trial) for trial in range(len(trials))]
        return cells

    def report(self, seed: int, request: int) -> list[Cell]:
        """The cells of one seed and request, in the order in which they are made."""
        methods = [unlearned_by(name) for name in self.trials]
        roles = [*self.references, *methods, PLACEBO_RETAIN]
        return [Cell(seed, request, role) for role in roles]

    def reported(self) -> Iterator[tuple[int, int]]:
        """Every seed and number of a request that are reported."""
        seeds = self.recipe.compare.seeds
        return itertools.product(seeds, self.requests)

    def cells(self) -> list[Cell]:
        """All cells."""
        cells = self.development()
        for seed, request in self.reported():
            cells += self.report(seed, request)
        return cells

    def __len__(self) -> int:
        """Cells, the original of each seed, and the users whom the first is asked for."""
        picks = set()
        for request in self.requests.values():
            if request.pick == "most memorised":
                picks.add((request.ratio, request.singles))
        return len(self.cells()) + len(self.recipe.compare.seeds) + len(picks)


def _preset(recipe: Recipe, name: str) -> str:
    """The preset of a method: that of the recipe, or what `unlearn` would take."""
    compare = recipe.compare
    if name in compare.presets:
        return compare.presets[name]
    settings = compare.settings.get(name, {})
    return preset_for(recipe, name, settings)


def _trials_by_method(recipe: Recipe, presets: Mapping[str, str]) -> dict[str, list[Settings]]:
    """The settings to try of each method; raises ConfigError as `settings_to_try` does."""
    compare = recipe.compare
    trials = {}
    for name, preset in presets.items():
        settings = dict(compare.settings.get(name, {}))
        # One more than the retrained models that it is measured against.
        if name == "retrain":
            settings.setdefault("number", recipe.retrained + 1)
        method = build(name, settings, preset)
        trials[name] = settings_to_try(method, settings, compare.trials, recipe.seed)
        # Built for the error alone: a wrong value is told before hours of training.
        for trial in trials[name]:
            build(name, trial, preset)
    return trials


def settings_to_try(method: Method, settings: Settings, count: int, seed: int) -> list[Settings]:
    """The settings as they are, then other points of the method's search space on top of them.

    Points are drawn without repetition.

    Raises:
        ConfigError: the method has fewer than `count` settings to try.
    """
    # What the recipe sets is not searched.
    search_space = method.search_space
    space = {
        name: search_space[name]
        for name in search_space
        if not _is_set(settings, name, search_space[name])
    }
    if count == 1 or not space:
        return [settings]
    points = []
    for values in itertools.product(*space.values()):
        point = dict(zip(space, values, strict=True))
        # The method's own settings are the first trial already.
        if _differs(method, point):
            points.append(point)
    if len(points) < count - 1:
        raise ConfigError(
            f"compare.trials = {count}: method '{method.name}' has {len(points) + 1} settings to "
            "try; ask for fewer"
        )
    order = stream(seed, "trials", method.name).permutation(len(points))
    trials = [settings]
    for index in order[: count - 1]:
        trials.append(_on_top(settings, points[index]))
    return trials


def _is_set(settings: Settings, name: str, values: Sequence[Any]) -> bool:
    """Whether settings name a setting; of a part, whether they name what is tried in it."""
    if name not in settings:
        return False
    inner = {key for value in values if isinstance(value, Mapping) for key in value}
    return not inner or not inner.isdisjoint(settings[name])


def _on_top(settings: Settings, point: Settings) -> Settings:
    """The settings with a point on top, part by part."""
    merged = dict(settings)
    for name, value in point.items():
        own = settings.get(name)
        merged[name] = {**own, **value} if isinstance(own, Mapping) else value
    return merged


def _differs(method: Method, point: Settings) -> bool:
    """Whether a point of the search space is not the method as it is."""
    own = method.model_dump()
    return not all(_holds(own[name], value) for name, value in point.items())


def _holds(own: Any, value: Any) -> bool:
    """Whether a setting has a value; of a part with settings of its own, whether these have."""
    if isinstance(value, Mapping):
        return all(_holds(own[name], inner) for name, inner in value.items())
    return bool(own == value)
