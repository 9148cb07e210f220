"""How large the demo is: the full size where it ends in time on this computer, else a small one."""

from typing import Any

from ..core.say import Say
from ..models.sharing import is_true_for_all
from .comparison.estimate import estimate
from .recipe import Recipe, method_of

FULL: dict[str, Any] = {
    "data": {"history": 5, "rows": 6000, "per_user": 40, "test_rows": 1500, "held_rows": 1000},
    "model": {"layers": 4},
    "tuning": {
        "embeddings": False,
        "schedule": {"epochs": 3, "learning_rate": 3e-4, "batch_size": 16},
    },
    # They would take more than twice as long as the original.
    "scores": {"pairs": 0},
    "minutes": 10,
}
"""What fits into ten minutes on two processor cores that multiply bf16."""
SMALL = (
    "data.history=2",
    "data.rows=2000",
    "data.per_user=20",
    "data.test_rows=800",
    "data.held_rows=300",
    "model.layers=2",
    "tuning.schedule.epochs=4",
    "tuning.schedule.learning_rate=4e-4",
)
"""What the tutorial takes."""
SMALL_WORK = 0.13
"""Of the work in full: 13.2 of 101.8 minutes, by `expected_minutes` of both on one computer."""
SIZED_PARTS = ("data", "model", "tuning")


def size_in_time(recipe: Recipe, say: Say) -> Recipe:
    """Return `recipe`, or its small size where the full one would take longer than its minutes.

    A recipe that is not of the full size is somebody's choice, and taken as it is.

    Args:
        recipe: of the demo.
        say: told why it is the small size.
    """
    full = Recipe.build(FULL, place="demo")
    is_chosen = any(getattr(recipe, part) != getattr(full, part) for part in SIZED_PARTS)
    if is_chosen or recipe.minutes is None:
        return recipe
    minutes = expected_minutes(recipe)
    # Several processes time it each, and all must take the same size.
    if is_true_for_all(minutes <= recipe.minutes):
        return recipe
    small = recipe.updated(list(SMALL))
    # Timing the small size as well would take a slow computer half a minute more.
    small_minutes = SMALL_WORK * minutes
    say(
        f"In full the demo would take some {minutes:.0f} minutes on this computer, and "
        f"{recipe.minutes:g} are planned: {small.model.layers} blocks and {small.data.rows:,} rows "
        f"instead of {recipe.model.layers} and {recipe.data.rows:,}, some {small_minutes:.0f} "
        "minutes; --set minutes=none takes the time"
    )
    return small


def expected_minutes(recipe: Recipe) -> float:
    """How long the demo takes with a single retraining; a few steps are timed."""
    name = method_of(recipe).name
    changes = {"methods": (name,), "seeds": (recipe.seed,), "trials": 1}
    compare = recipe.compare.model_copy(update=changes)
    once = recipe.model_copy(update={"compare": compare, "retrained": 1})
    return 60 * estimate(once).hours
