"""Tune a base on rows with known answers: the original on D, a retrained model on D_r, by the same function."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ..core.seeding import derive
from ..data.prompts import PromptTemplate
from ..metrics.classification import log_loss
from ..models import adapters
from ..models.adapters import LoRA
from ..models.backbone import Backbone
from ..models.batches import Examples, epoch_batches
from ..models.predictions import predict
from ..models.recommender import Recommender
from .loop import Losses, Plan, Progress, Schedule, Step, Trace, fit, silent


class Tuning(BaseModel):
    """How a recommender is tuned from its base: the whole model, or base + LoRA."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedule: Schedule = Schedule()
    lora: LoRA | None = None
    embeddings: bool = Field(
        True, description="whether full tuning moves token embeddings and output head as well"
    )


def cross_entropy(z: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`CE(y, p) = −mean log p(y)`: z (b, V), answer tokens (b,) → scalar, in nats."""
    return F.cross_entropy(z, tokens)


def supervised(
    model: Recommender, rows: Examples, name: str = "train"
) -> Callable[[nn.Module, Step], Losses]:
    """Objective: cross-entropy of the right answer over the whole vocabulary."""

    def objective(wrapped: nn.Module, step: Step) -> Losses:
        batch = model.collate(rows, step[name])
        return {name: cross_entropy(wrapped(batch), model.verbaliser.tokens(batch.labels))}

    return objective


def one_set(rows: Examples, size: int, seed: int, name: str = "train") -> Plan:
    """Plan: every row once an epoch."""
    return lambda epoch: [
        {name: index} for index in epoch_batches(rows.lengths, size, seed=seed, epoch=epoch)
    ]


def tune(
    base: Backbone,
    template: PromptTemplate,
    tuning: Tuning,
    train: Examples,
    valid: Examples | None,
    *,
    window: int = 512,
    seed: int,
    progress: Progress = silent,
    phase: str = "original",
) -> tuple[Recommender, Trace]:
    """Tune a fresh copy of `base` on `train`: what makes an original, and on D_r a retrained model.

    The best epoch on `valid` is kept when `tuning.schedule.patience` is set; otherwise all epochs count and
    `valid` is not read.
    """
    schedule, backbone = tuning.schedule, base.copy()
    if tuning.lora:
        lm = adapters.attach(backbone.lm, "original", tuning.lora, seed=derive(seed, "adapter"))
        backbone = Backbone(lm, base.tokenizer, base.name)
    model = Recommender(
        backbone, template, active=("original",) if tuning.lora else (), window=window
    )

    def validation() -> float:
        assert valid is not None
        rows = predict(model, valid, precision=schedule.precision)
        return log_loss(rows.labels, rows.log_odds)

    plan = one_set(train, schedule.batch_size, seed)
    common: dict[str, Any] = {"seed": seed, "progress": progress, "phase": phase}
    common["monitor"] = validation if schedule.patience and valid is not None else None
    if tuning.lora:
        with model.using(train="original") as parameters:
            trace = fit(model, parameters, plan, supervised(model, train), schedule, **common)
    else:
        model.lm.train().requires_grad_(True)
        if not tuning.embeddings:
            model.lm.get_input_embeddings().requires_grad_(False)
            model.lm.get_output_embeddings().requires_grad_(False)
        parameters = [parameter for parameter in model.lm.parameters() if parameter.requires_grad]
        trace = fit(model, parameters, plan, supervised(model, train), schedule, **common)
        model.lm.eval().requires_grad_(False)
    return model, trace
