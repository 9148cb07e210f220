"""Say what memory the commands take, before anything is loaded."""

import math
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from ..core.errors import ConfigError
from ..experiments.memory.moments import Machine, MemoryPlan, RowCounts
from ..experiments.memory.plan import plan_commands
from ..experiments.packaged import resolve_model
from ..experiments.recipe import Recipe
from ..models.backbone import find_gguf, refuse_packed_gguf
from ..models.devices import default_device
from ..models.weightless import read_config
from ..runs.record import NAME, RunRecord, read_record

USUAL_ROWS = 10_000
"""Training rows that are counted where nobody says how many there are."""


def plan_memory(
    target: str,
    settings: Sequence[str] = (),
    *,
    gpu_gb: float | None = None,
    rows: int | None = None,
) -> MemoryPlan:
    """Plan the memory of train, unlearn and evaluate from shapes alone; no weights are loaded.

    Args:
        target: a run folder, a packaged name, a folder of a model or a Hugging Face name, of which
            the configuration is read.
        settings: of the recipe, such as `tuning.lora.rank=16`.
        gpu_gb: memory of the GPU to plan for, in GB; None: the GPU at hand, or this computer.
        rows: training rows; None: those of the run or the recipe, or 10,000.

    Raises:
        RunError: the run folder is damaged.
        ModelError: there is no such model.
        ConfigError: a setting is none or holds for no such model, or a number is not above zero or
            has no end.
    """
    for option, value in (("--gpu", gpu_gb), ("--rows", rows)):
        # NaN is neither above 0 nor not.
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{option} {value:g}: is no number above 0; name one that is")
    folder = Path(target)
    record = read_record(folder) if (folder / NAME).exists() else None
    if record is None:
        recipe = Recipe.build({"model": {"name": target}}, place=target)
    else:
        recipe = Recipe.build(record.recipe, place=target)
    recipe = recipe.updated(settings)
    source = resolve_model(recipe.model.name)
    refuse_packed_gguf(source, recipe.model.quantize)
    config = read_config(
        source,
        layers=recipe.model.layers,
        # What a folder names, which may come from a stranger, is not fetched.
        offline=record is not None,
    )
    counts = RowCounts(rows or _training_rows(recipe, record), recipe.request.ratio)
    return plan_commands(
        recipe,
        config,
        _machine(gpu_gb),
        counts,
        trained=record is not None,
        unpacked=find_gguf(Path(source)) is not None,
    )


def _machine(gpu_gb: float | None) -> Machine:
    if gpu_gb is not None:
        return Machine(is_gpu=True, bytes=round(gpu_gb * 1e9))
    device = default_device()
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return Machine(is_gpu=True, bytes=memory)
    return Machine(is_gpu=False, bytes=psutil.virtual_memory().total)


def _training_rows(recipe: Recipe, record: RunRecord | None) -> int:
    """Rows that an original was tuned on, as far as that is known."""
    # An original notes the rows of all its epochs.
    if record is not None and "train" in record.rows:
        return max(1, record.rows["train"] // recipe.tuning.schedule.epochs)
    return recipe.data.rows or USUAL_ROWS
