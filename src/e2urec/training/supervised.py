"""Tune a base on rows with known answers.

The original on D and a retrained model on D_r are made by the same function.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ..core.seeding import derive
from ..metrics.classification import log_loss
from ..models import adapters
from ..models.adapters import LoRA
from ..models.batches import Examples, epoch_batches
from ..models.predictions import predict
from ..models.quantisation import refuse_quantised
from ..models.recommender import Recommender
from .loop import fit
from .objective import Losses, Objective, Step, StepPlan
from .phase import Phase
from .schedule import Schedule
from .state import Trace, TrainingState


class Tuning(BaseModel):
    """How a recommender is tuned from its base: the whole model, or base + LoRA."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schedule: Schedule = Schedule()
    lora: LoRA | None = None
    embeddings: bool = Field(
        True, description="whether full tuning moves token embeddings and output head as well"
    )


def cross_entropy(z: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`CE(y, p) = −mean log p(y)`: z (b, V), answer tokens (b,) → scalar, in nats."""
    return F.cross_entropy(z, tokens)


def supervised(model: Recommender, rows: Examples, name: str = "train") -> Objective:
    """Objective: cross-entropy of the right answer over the whole vocabulary.

    Args:
        model: collates the rows, and knows the answers' tokens.
        rows: with known answers.
        name: of the set in a step, and of the loss.
    """

    def losses(wrapped: nn.Module, step: Step) -> Losses:
        batch = model.collate(rows, step[name])
        z = wrapped(batch)
        tokens = model.verbaliser.tokens(batch.labels)
        loss = cross_entropy(z, tokens)
        return {name: loss}

    return Objective(losses)


def shuffled_plan(rows: Examples, batch_size: int, seed: int, name: str = "train") -> StepPlan:
    """A plan: every row once an epoch, in an order that is a function of (seed, epoch)."""

    def plan(epoch: int) -> list[Step]:
        batches = epoch_batches(
            rows.lengths,
            batch_size,
            seed=seed,
            epoch=epoch,
        )
        return [{name: batch} for batch in batches]

    return plan


def tune(
    untuned: Recommender,
    tuning: Tuning,
    train: Examples,
    valid: Examples | None,
    phase: Phase,
) -> tuple[Recommender, Trace]:
    """Tune a fresh copy on `train`: what makes an original, and on D_r a retrained model.

    The best epoch on `valid` is kept when `tuning.schedule.patience` is set and requests have left
    rows to validate on; otherwise all epochs count and `valid` is not read.

    Args:
        untuned: backbone, template and window; it is only read.
        tuning: schedule, and whether the whole model is tuned or an adapter.
        train: rows to learn.
        valid: rows for early stopping, or None.
        phase: name, seed and progress. The seed also decides the order of the rows and, with LoRA,
            the adapter's first weights.

    Returns:
        The tuned recommender in evaluation mode, all frozen, and what happened.
    """
    schedule = tuning.schedule
    model = _fresh_copy(untuned, tuning, phase.seed)

    monitor = monitor_of(model, valid, schedule)
    plan = shuffled_plan(train, schedule.batch_size, phase.seed)
    objective = supervised(model, train)
    with _trainable_parameters(model, tuning) as parameters:
        state = TrainingState.start(parameters, schedule)
        trace = fit(model, state, plan, objective, phase, monitor)
    return model, trace


def monitor_of(
    model: Recommender,
    valid: Examples | None,
    schedule: Schedule,
    active: Sequence[str] | None = None,
) -> Callable[[], float] | None:
    """What says after each epoch how well `valid` is answered: log loss, in nats.

    None where nothing depends on it: it costs a pass over these rows an epoch. `active` are the
    adapters that answer, by default the recommender's own.
    """
    if schedule.patience is None or valid is None or not len(valid):
        return None
    rows = valid

    def validation_loss() -> float:
        answers = predict(model, rows, active=active, precision=schedule.precision)
        return log_loss(answers.labels, answers.log_odds)

    return validation_loss


def _fresh_copy(untuned: Recommender, tuning: Tuning, seed: int) -> Recommender:
    """A recommender with weights of its own, or with an adapter on those of the base."""
    # The base itself stays as it is: other models are tuned from it as well.
    active: tuple[str, ...] = ()
    if tuning.lora is None:
        backbone = untuned.backbone.copy()
    else:
        backbone = untuned.backbone.with_shared_weights()
        adapter_seed = derive(seed, "adapter")
        adapted = adapters.attach(backbone.lm, "original", tuning.lora, seed=adapter_seed)
        backbone = replace(backbone, lm=adapted)
        active = ("original",)
    return Recommender(
        backbone,
        untuned.template,
        active=active,
        window=untuned.window,
    )


@contextlib.contextmanager
def _trainable_parameters(model: Recommender, tuning: Tuning) -> Iterator[list[nn.Parameter]]:
    """Inside, what `tuning` moves is trainable; afterwards the model is frozen again."""
    if tuning.lora is not None:
        with model.using(train="original") as parameters:
            yield parameters
        return
    with fully_trainable(model, embeddings=tuning.embeddings) as parameters:
        yield parameters


@contextlib.contextmanager
def fully_trainable(model: Recommender, *, embeddings: bool) -> Iterator[list[nn.Parameter]]:
    """Inside, the whole model is trainable, with or without embeddings; then it is frozen again.

    Raises:
        ConfigError: its weights are quantised.
    """
    refuse_quantised(model.lm, "tuning the whole model")
    # Dropout is on only where the whole model is tuned; an adapter has its own.
    model.lm.train().requires_grad_(True)
    # Of tied weights both names mean the same matrix; of others, each has to be frozen.
    if not embeddings:
        model.lm.get_input_embeddings().requires_grad_(False)
        model.lm.get_output_embeddings().requires_grad_(False)
    yield [parameter for parameter in model.lm.parameters() if parameter.requires_grad]
    model.lm.eval().requires_grad_(False)
