"""A toy request for erasure, put to an original that was tuned on toy rows."""

import copy
import functools

import torch

from ..data.prompts import TEMPLATES
from ..data.requests import ErasureRequest, Unit, resolve
from ..data.splits import SplitSettings, split
from ..models.adapters import LoRA
from ..models.batches import concatenate
from ..models.recommender import Recommender
from ..training.loop import Phase, Schedule
from ..training.supervised import Tuning, tune
from ..unlearning.method import Method
from ..unlearning.task import Task, TrainingTask
from .models import Kind, toy_backbone
from .tables import toy_interactions

# Two passes at a high rate: the original learns some of its rows by heart, so that there is
# something to forget. In fp32 the scores are the same on every CPU of a kind.
TUNING = Tuning(schedule=Schedule(epochs=2, learning_rate=3e-3, batch_size=8, precision="fp32"))


def toy_task(
    kind: Kind, *, lora: bool = False, seed: int = 5, unit: Unit = "users", ratio: float = 0.2
) -> Task:
    """Tune an original on toy interactions, and ask it to forget a share of its rows.

    Args:
        kind: of the model.
        lora: whether the original is base + LoRA and not fully tuned.
        seed: of the tuning, and of the task. Split and request are always the same.
        unit: what is forgotten: users, interactions or items.
        ratio: which share of these.

    Returns:
        A task of the caller's own, models included. PyTorch's global generator is left as the
        tuning leaves it.
    """
    task, generator_state = _tuned_task(kind, lora, seed, unit, ratio)
    torch.set_rng_state(generator_state)
    return copy.deepcopy(task)


# Tuning takes ten times as long as copying, and the tests of one method ask for few tasks often.
@functools.cache
def _tuned_task(
    kind: Kind, lora: bool, seed: int, unit: Unit, ratio: float
) -> tuple[Task, torch.Tensor]:
    """Make the task that `toy_task` hands out copies of, and tell the generator's state then."""
    base = toy_backbone(kind)
    tuning = TUNING.model_copy(update={"lora": LoRA(rank=4)}) if lora else TUNING
    settings = SplitSettings(history=3, unseen=0.1, calibration=0.1)
    parts = split(toy_interactions(), settings, seed=1)
    rows = resolve(ErasureRequest.draw(parts.train, ratio, 3, unit), parts)
    untuned = Recommender(base, TEMPLATES["compact"])
    encode = untuned.encode
    valid = encode(rows.valid)
    phase = Phase("original", seed)
    original, _ = tune(untuned, tuning, encode(parts.train), valid, phase)
    task = Task(
        original=original,
        base=base,
        tuning=tuning,
        forget=encode(rows.forget),
        retain=encode(rows.retain),
        rewritten=rows.rewritten,
        old_prompts=encode(rows.old_prompts),
        valid=valid,
        calibration=encode(parts.calibration),
        unseen=encode(parts.unseen),
        seed=seed,
        precision="fp32",
    )
    return task, torch.get_rng_state()


def toy_task_for(method: Method, kind: Kind, *, lora: bool = False, seed: int = 5) -> Task:
    """Make a toy task, put to the method's own original if the method prepares one."""
    task = toy_task(kind, lora=lora, seed=seed)
    if not method.prepares:
        return task
    assert task.base is not None
    training_task = TrainingTask(
        base=task.base,
        template=task.original.template,
        window=task.original.window,
        tuning=task.tuning,
        train=concatenate([task.forget, task.retain]),
        valid=task.valid,
        seed=seed,
        precision="fp32",
    )
    task.original = method.prepare(training_task)
    return task
