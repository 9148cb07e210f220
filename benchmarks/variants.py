"""What `unlearning.py` compares: the published algorithm, E2URec in many settings, retraining."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import recipe_of
from e2urec.experiments.recipe import Recipe
from e2urec.methods.e2urec import E2URec
from e2urec.models.precision import Precision
from e2urec.runs.folder import open_run


@dataclass(frozen=True)
class Variant:
    """A way to forget.

    Attributes:
        method: its name; `published` is no method of the package.
        settings: those that differ from the method's defaults; of `published`, its passes.
        precision: of its steps.
    """

    method: str = "e2urec"
    settings: Mapping[str, Any] = field(default_factory=dict)
    precision: Precision = "auto"


PUBLISHED = "published"
RETRAIN = "retrain"
SCORES = "scores"
"""What `unlearn` takes where a run has out-of-fold scores."""
TWO_PASSES = "published_two_passes"

GAIN = "gain"
"""Ours with the paper's own forgetting teacher: an augmented model."""


def by_gain(settings: Mapping[str, Any] | None = None, precision: Precision = "auto") -> Variant:
    """Preset `gain` with some settings on top."""
    return Variant(settings={**E2URec.presets[GAIN], **(settings or {})}, precision=precision)


PAPER = E2URec.presets["paper"]
RELEASED_PASSES = {
    "augment": PAPER["augment_passes"],
    "warmup": PAPER["warmup"],
    "joint": PAPER["joint"],
}
"""Over D_f, as released: 1,200 steps of the augmented model, 812 of warm-up, 188 joint."""
SAME_PASSES = {
    **E2URec.presets[GAIN],
    "augment_passes": PAPER["augment_passes"],
    "warmup": PAPER["warmup"],
    "joint": PAPER["joint"],
    "min_steps": 1,
    "augment_min_steps": 1,
    "scaling": {"largest": 0.0},
}
"""Those of preset `gain` that make the same passes: no step more on a small D_f, no scaling."""
UNTUNED_ALPHA = 2.0
"""The published α. On a model that was never tuned none can be found from what it has learned."""

VARIANTS = {
    PUBLISHED: Variant(PUBLISHED, RELEASED_PASSES),
    "same_precision": Variant(settings=SAME_PASSES, precision="fp32"),
    "all": Variant(settings=SAME_PASSES),
    GAIN: by_gain(),
    "default": Variant(),
    SCORES: Variant(settings=E2URec.presets[SCORES]),
    RETRAIN: Variant(RETRAIN),
    # 8.6 times the released joint phase. Earlier figures are against this one.
    TWO_PASSES: Variant(PUBLISHED, RELEASED_PASSES | {"joint": 2.0}),
}
SMALL_VARIANTS = (GAIN, "default", SCORES, RETRAIN)
"""Variants that small requests are put to: the others say nothing new there."""

LEVERS = {
    "every lever": by_gain(),
    "adapters on all blocks, so nothing to replay": by_gain({"lora": {"upper": 1.0}}),
    "lower blocks computed anew": by_gain({"speed": {"replay": False}}),
    "teachers asked anew at each step": by_gain({"speed": {"kept_teachers": False}}),
    "last block at all positions": by_gain({"speed": {"answer_only": False}}),
    "forget and retain rows in a pass each": by_gain({"speed": {"together": "batch"}}),
    # Without CE in L_REM there is one loss a batch, and a pass for each would change nothing.
    "a pass for each loss, with CE in L_REM": by_gain(
        {"remember": "kl+ce", "speed": {"together": "loss"}}
    ),
    # A full copy has no ΔW to start at, and diverges at an adapter's learning rate.
    "augmented model as a full copy, no start": by_gain(
        {"augment": "full", "start_scale": 0.0, "augment_rate": 5e-5}
    ),
    "random batches": by_gain({"speed": {"buckets": False}}),
    "float32": by_gain(precision="fp32"),
}
"""Preset `gain`, which reads all levers, and the same with one lever off at a time."""

# So few rows that a model with all its blocks can be measured in minutes.
FEW_ROWS = {
    "data.rows": 240,
    "data.per_user": 8,
    "data.history": 5,
    "data.test_rows": 100,
    "data.held_rows": 200,
}


def recipe_for(
    original: Path | None, backbone: str, ratio: float, precision: Precision = "auto"
) -> Recipe:
    """The recipe of run `original`, or one for `backbone` as it comes.

    Args:
        original: run folder of an original; None: there is none.
        backbone: packaged name or folder; not read where there is an original.
        ratio: share of the users to forget.
        precision: of all steps.
    """
    if original is not None:
        recipe = recipe_of(open_run(original))
    else:
        settings = [f"{key}={value}" for key, value in FEW_ROWS.items()]
        recipe = Recipe().updated([f"model.name={backbone}", *settings])
    return recipe.updated([f"request.ratio={ratio}", f"tuning.schedule.precision={precision}"])
