"""What a method is: settings, and what it does with a task."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from ..models.recommender import Recommender
from ..training.loop import Schedule
from .task import RequestScores, Task, TrainingTask


class Method(BaseModel):
    """A way to forget.

    Its fields are its settings: command line, recipes, checks and docs derive from them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    # Settings that differ from the defaults, by name of the preset.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # Whether the task must come with the base, which takes time to load.
    needs_base: ClassVar[bool] = False
    # Whether nothing of D_f is left by construction: the result is made of nothing that saw it.
    exact: ClassVar[bool] = False
    # Whether the method has an original of its own, made by `prepare` before any request.
    prepares: ClassVar[bool] = False
    # Values of settings among which a comparison chooses on its development request.
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @classmethod
    def suited_preset(
        cls, settings: Mapping[str, Any], *, has_scores: bool, has_strangers: bool
    ) -> str:
        """The preset where the user names none, but perhaps some settings on top of it."""
        return "default"

    @classmethod
    def readable(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Of a record's settings, those that matter: others may have had other usual values."""
        return dict(settings)

    @property
    def search_space(self) -> Mapping[str, tuple[Any, ...]]:
        """Of `search`, what matters with the settings as they are."""
        return self.search

    def unread(self, forget: int) -> Sequence[str]:
        """Names of settings that make no difference to a request of so many rows."""
        return ()

    def suited(self, forget: int, retain: int, lm: Any) -> "Method":
        """The same method without what this original is too small, or too large, for.

        Args:
            forget: rows of D_f.
            retain: rows of D_r.
            lm: the original's language model, with values or without.
        """
        return self

    def regime(self, forget: int) -> Hashable:
        """What the method does differently with a request of so many rows than with another size.

        Figures of one request speak for another where this is the same.
        """
        return None

    def prepare(self, task: TrainingTask) -> Recommender:
        """Train the recommender that a later request will be put to.

        Only for methods that need one of their own.
        """
        raise NotImplementedError

    def check_scores(self, scores: RequestScores | None) -> None:
        """Raise ConfigError where the method needs out-of-fold scores that a request lacks."""

    def unlearn(self, task: Task) -> Recommender:
        """Return the model that has forgotten `task.forget`."""
        raise NotImplementedError

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """Rows read in each phase.

        Args:
            forget: rows of D_f.
            retain: rows of D_r.
            schedule: the original's.
        """
        raise NotImplementedError

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """Optimizer steps that move the recommender itself: a placebo takes as many."""
        raise NotImplementedError


def unread_differences(methods: Sequence[Method], forget: int) -> list[str]:
    """The settings in which `methods`, one in several settings, differ in vain.

    A request of `forget` rows does not read them, so nothing can be chosen among their values.
    """
    first = methods[0]
    names = []
    for name in first.unread(forget):
        value = getattr(first, name)
        if any(getattr(method, name) != value for method in methods):
            names.append(name)
    return names
