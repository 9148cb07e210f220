"""A recipe: everything that a result depends on, from a TOML file, a preset or the command line."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..core.errors import ConfigError, did_you_mean
from ..data.requests import Unit
from ..data.sources.reading import Columns, Reading
from ..data.splits import SizeLimits, SplitSettings
from ..evaluation.relearning import Relearning
from ..evaluation.shadows import Shadows
from ..evaluation.verdict import Margins
from ..methods import build, suited_preset
from ..training.out_of_fold import OutOfFold
from ..training.supervised import Tuning
from ..unlearning.method import Method
from .model_recipe import ModelRecipe

NESTED = "is nested too deeply; no setting takes so many brackets"
# A comma inside a list is not followed by a key and its sign.
NEXT_SETTING = re.compile(r",(?=[A-Za-z_][\w.]*=)")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataRecipe(SizeLimits, SplitSettings, Reading):
    """Which interactions, how they are split, how they become prompts."""

    template: str = Field(
        "compact",
        description="prompt template: compact, paper, or a Jinja2 file (.j2); for rows that bring "
        "their own prompts verbatim or chat",
    )
    joined: bool = Field(
        True,
        description="tokenise recurring pieces of prompts once, where that gives the same tokens",
    )
    seed: int | None = Field(
        None, description="of the split and of the users kept; default: the recipe's seed"
    )


class RequestRecipe(_Part):
    """Whom to forget, when no file says so."""

    ratio: float = Field(
        0.2, gt=0, lt=1, description="share of the training users, or of what unit says"
    )
    unit: Unit = Field("users", description="what is drawn: users, interactions or items")
    seed: int = Field(42, description="seed of their choice")


class DrawnRequest(RequestRecipe):
    """A request of a comparison."""

    pick: Literal["random", "most memorised"] = Field(
        "random",
        description="which users: random ones, or those whom the first seed's original remembers "
        "most",
    )
    singles: int | None = Field(
        None,
        ge=1,
        description="so many users in place of a share, each a request of her own; their rows are "
        "measured as one set",
    )

    @model_validator(mode="after")
    def _check_unit(self) -> Self:
        is_special = self.singles is not None or self.pick != "random"
        if is_special and self.unit != "users":
            raise ValueError(f"unit {self.unit} has no pick and no singles; set unit = 'users'")
        # A recipe that was written out has the default beside a number.
        default = type(self).model_fields["ratio"].default
        if self.singles is not None and self.ratio != default:
            raise ValueError(
                f"singles = {self.singles} and ratio = {self.ratio:g} both say how many users; "
                "leave one out"
            )
        return self

    def in_words(self) -> str:
        """What is drawn, for people."""
        if self.singles is not None:
            pick = "random" if self.pick == "random" else f"the {self.pick}"
            return f"{self.singles} single users ({pick}), each a request of her own"
        share = f"{100 * self.ratio:.3g}%"
        if self.pick == "random":
            return f"{share} of the {self.unit}"
        return f"the {share} {self.pick} {self.unit}"


class MethodRecipe(_Part):
    """How to forget."""

    name: str = Field("e2urec", description="method")
    preset: str | None = Field(
        None, description="preset of the method; without it, the one that suits the recipe"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings on top of the preset"
    )


class CompareRecipe(_Part):
    """Methods × seeds × requests, on the same footing."""

    methods: tuple[str, ...] = Field((), description="methods to compare; all of them by default")
    seeds: tuple[int, ...] = Field(
        (0,), min_length=1, description="seeds of the originals and of all made from them"
    )
    requests: tuple[DrawnRequest, ...] = Field(
        (DrawnRequest(),), min_length=1, description="whom to forget, in turn"
    )
    development: RequestRecipe = Field(
        RequestRecipe(seed=7),
        description="request on which settings are chosen, among users no other request names",
    )
    trials: int = Field(
        1,
        ge=1,
        le=1000,
        description="settings tried for each method, its own first; 1: nothing is chosen",
    )
    tolerance: float = Field(
        0.01, ge=0, description="validation AUC that a chosen setting may cost"
    )
    shadows: bool = Field(
        False, description="attack by likelihood ratio as well, with the recipe's shadow models"
    )
    resamples: int = Field(
        2000, ge=100, le=1_000_000, description="resamples of users behind each interval"
    )
    settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings by method, on top of its preset"
    )
    presets: dict[str, str] = Field(
        default_factory=dict,
        description="presets by method; without one, that which suits the recipe",
    )


class Recipe(_Part):
    """All settings of a run."""

    # Each part is the settings of one room, defined where they are used.

    data: DataRecipe = DataRecipe()
    columns: Columns = Columns()
    model: ModelRecipe = ModelRecipe()
    tuning: Tuning = Tuning()
    request: RequestRecipe = RequestRecipe()
    method: MethodRecipe = MethodRecipe()
    margins: Margins = Margins()
    scores: OutOfFold = OutOfFold()
    shadows: Shadows = Shadows()
    relearning: Relearning = Relearning()
    compare: CompareRecipe = CompareRecipe()
    retrained: int = Field(
        3, ge=0, le=1000, description="retrained models to compare with; a PASS takes three"
    )
    minutes: float | None = Field(
        None, gt=0, description="no retraining but the first that would end the demo later"
    )
    seed: int = Field(0, description="of everything random but the request")

    @model_validator(mode="after")
    def _check_base(self) -> Self:
        self.model.check_tuning(whole=self.tuning.lora is None)
        return self

    @property
    def data_seed(self) -> int:
        """The seed of all that chooses rows."""
        # A comparison chooses them by one seed, whatever the seeds of its originals are.
        return self.seed if self.data.seed is None else self.data.seed

    @classmethod
    def build(cls, values: Mapping[str, Any], *, place: str) -> "Recipe":
        """Check `values` from `place`.

        Raises:
            ConfigError: an unknown key, with the nearest known one; a wrong type; a value out of
                range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_explain(error, place)) from error

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read a TOML file; raises ConfigError as `build` does, and for a file that is no TOML."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"recipe '{path}': cannot be read ({error.strerror}); name a TOML file"
            ) from error
        # Also numbers of thousands of digits, and names that no file can have.
        except ValueError as error:
            raise ConfigError(f"recipe '{path}': {error}; correct the line") from error
        except RecursionError as error:
            raise ConfigError(f"recipe '{path}': {NESTED}") from error
        return cls.build(values, place=str(path))

    def updated(self, settings: Iterable[str]) -> "Recipe":
        """Return the recipe with settings such as `data.rows=3000` or `method.alpha=2`.

        Raises:
            ConfigError: as `build` does, and for a setting without a sign or of an unknown part.
        """
        values = self.model_dump()
        for setting in settings:
            key, value = _key_and_value(setting, "data.rows=3000")
            _place(values, key, value, setting)
        return Recipe.build(values, place="--set")


def method_of(recipe: Recipe) -> Method:
    """The recipe's method with its preset and settings; raises ConfigError as `build` does."""
    method = recipe.method
    preset = method.preset
    if preset is None:
        preset = preset_for(recipe, method.name, method.settings)
    return build(method.name, method.settings, preset)


def preset_for(recipe: Recipe, name: str, settings: Mapping[str, Any]) -> str:
    """The preset of method `name` that suits the recipe's scores and calibration users."""
    return suited_preset(
        name,
        settings,
        has_scores=recipe.scores.pairs > 0,
        has_strangers=recipe.data.calibration > 0,
    )


# The command line speaks TOML, as recipes do: a list or a date is written the same in both.
def toml_value(text: str) -> Any:
    """A setting's value: TOML (`3`, `0.2`, `true`, `[1, 2]`), `none`, or else the text itself.

    Raises:
        ConfigError: it is nested too deeply.
    """
    try:
        values = tomllib.loads(f"x = {text}")
    # Also a number of thousands of digits: as text it is refused wherever a number is expected.
    except ValueError:
        return None if text == "none" else text
    except RecursionError as error:
        raise ConfigError(f"--set …={text}: {NESTED}") from error
    # A line end in the text begins another setting.
    return values["x"] if len(values) == 1 else text


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`["alpha=2", "lora.rank=8"]` → `{"alpha": 2, "lora": {"rank": 8}}`.

    Values are TOML, or else text.

    Raises:
        ConfigError: a setting has no sign.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, value = _key_and_value(setting, "alpha=2")
        *parents, last = key.split(".")
        part = values
        for parent in parents:
            part = part.setdefault(parent, {})
            if not isinstance(part, dict):
                raise ConfigError(
                    f"--set {setting}: '{parent}' has a value of its own already; set one of them"
                )
        part[last] = value
    return values


def split_settings(text: str) -> list[str]:
    """`alpha=2,lora.rank=8` → `["alpha=2", "lora.rank=8"]`; a value may be a list with commas."""
    return NEXT_SETTING.split(text)


def _key_and_value(setting: str, example: str) -> tuple[str, Any]:
    key, sign, text = setting.partition("=")
    if not sign:
        raise ConfigError(f"--set {setting}: has no '='; write key=value, such as {example}")
    return key.strip(), toml_value(text.strip())


def _place(values: dict[str, Any], key: str, value: Any, setting: str) -> None:
    """Put a value where its key says; the parts on the way must be there."""
    *parents, last = key.split(".")
    part = values
    for parent in parents:
        # An optional part that is not there yet, such as tuning.lora, begins empty.
        if parent in part and part[parent] is None:
            part[parent] = {}
        parts = [name for name, inner in part.items() if isinstance(inner, dict)]
        if parent not in parts:
            hint = did_you_mean(parent, parts)
            raise ConfigError(f"--set {setting}: unknown part '{parent}'{hint}")
        part = part[parent]
    # method.alpha=2 is a setting of the method itself, which checks it.
    if parents == ["method"] and last not in MethodRecipe.model_fields:
        part = part["settings"]
    part[last] = value


def _explain(error: ValidationError, place: str) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] != "extra_forbidden":
        name = ".".join(path)
        reason = first["msg"].lower()
        return f"{place}: {name} = {first.get('input')!r}: {reason}"
    *parents, key = path
    section = f"[{'.'.join(parents)}] " if parents else ""
    hint = did_you_mean(key, _field_names(parents))
    return f"{place}: {section}has unknown key '{key}'{hint}"


def _field_names(path: list[str]) -> list[str]:
    """The keys that the part of a recipe at `path` may have."""
    model: type[BaseModel] = Recipe
    for part in path:
        # A place in a list, such as the second of compare.requests.
        if part.isdigit():
            continue
        annotation = model.model_fields[part].annotation
        model = _model_in(annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:
    """The model in `Model`, `Model | None` or `tuple[Model, ...]`."""
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    raise AssertionError(f"{annotation} holds no part of a recipe")
