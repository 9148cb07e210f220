"""Every method there is: one file each, one line here; others join through the entry points `e2urec.methods`."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from ..core.errors import ConfigError, did_you_mean
from ..unlearning.method import Method
from .apa import APA
from .badt import BadTeacher
from .e2urec import E2URec
from .finetune import Finetune
from .graddiff import GradDiff
from .ifru import IFRU
from .neggrad import NegGrad
from .npo import NPO
from .pcgrad import PCGrad
from .receraser import RecEraser
from .relabel import Relabel
from .retrain import Retrain
from .simnpo import SimNPO
from .sisa import SISA

BUILT_IN: tuple[type[Method], ...] = tuple(
    each
    for each in vars().values()
    if isinstance(each, type) and issubclass(each, Method) and each is not Method
)
"""The methods imported above."""


def all_methods() -> dict[str, type[Method]]:
    """All methods by name: ours, then those registered by other packages."""
    found = {method.name: method for method in BUILT_IN}
    for entry in entry_points(group="e2urec.methods"):
        method = entry.load()
        found.setdefault(method.name, method)
    return found


def _within(default: Any, value: Any) -> Any:
    """`value`, in which a part that is not given (of `lora`, say) stays as it is by default."""
    if isinstance(default, BaseModel):
        default = default.model_dump()
    return (
        {**default, **value}
        if isinstance(default, Mapping) and isinstance(value, Mapping)
        else value
    )


def build(name: str, settings: Mapping[str, Any] | None = None, preset: str = "default") -> Method:
    """Return method `name` with a preset's settings and then `settings` on top, part by part.

    Raises:
        ConfigError: unknown method, preset or setting, or a value out of range.
    """
    known = all_methods()
    if name not in known:
        raise ConfigError(f"unknown method '{name}'{did_you_mean(name, list(known))}")
    cls = known[name]
    presets = {"default": {}, **cls.presets}
    if preset not in presets:
        raise ConfigError(
            f"method '{name}' has no preset '{preset}'{did_you_mean(preset, list(presets))}"
        )
    merged: dict[str, Any] = dict(presets[preset])
    for key, value in (settings or {}).items():
        if key.split(".")[0] not in cls.model_fields:
            fields = list(cls.model_fields)
            raise ConfigError(
                f"method '{name}' has unknown setting '{key}'{did_you_mean(key, fields)}"
            )
        merged[key] = _within(merged.get(key, cls.model_fields[key].default), value)
    try:
        return cls(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"method '{name}': {place}={first.get('input')!r}: {first['msg']}"
        ) from error
