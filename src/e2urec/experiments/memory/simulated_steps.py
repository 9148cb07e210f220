"""Steps of the commands without values, by the code that makes the real ones.

What a step takes depends on shapes and precision alone, so the longest row stands for all.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ...models import adapters
from ...models.adapters import LoRA
from ...models.batches import COLUMN_MULTIPLE, FORWARD_BATCH_SIZE, Examples
from ...models.live_bytes import (
    LiveBytes,
    Peak,
    fused_attention,
    model_tensors,
    model_vocabulary,
    tensor_bytes,
    without_values,
)
from ...models.precision import autocast_type
from ...models.quantisation import quantised_bytes
from ...models.weightless import (
    ShapedStates,
    WeightlessRecommender,
    attach_weightless,
    build_weightless,
    drop_values,
    examples_of_length,
    linear_layers,
)
from ...training.micro_batches import StepGradients
from ...training.objective import Objective, Step
from ...training.process_share import ProcessShare
from ...training.state import TrainingState
from ...training.supervised import fully_trainable, supervised
from ...unlearning.paired import side_by_side, teacher_loss
from ...unlearning.replay import Speed
from ...unlearning.task import Task
from ...unlearning.teachers import FrozenTeacher
from ..recipe import Recipe
from .moments import Machine

STATE_BYTES = 4
"""Of each number of a state or a logit, which are float32."""
# AdamW keeps two moments of each parameter, and the number of steps of each tensor in float32.
MOMENTS = 2
STEP_BYTES = 4
STUDENT = "student"


def optimizer_bytes(parameters: Sequence[nn.Parameter]) -> int:
    """Bytes of AdamW's state: two moments of each parameter, and a count of steps of each tensor.

    Kingma and Ba 2015, arXiv 1412.6980, algorithm 1.
    """
    return MOMENTS * tensor_bytes(parameters) + STEP_BYTES * len(parameters)


class SimulatedModel:
    """The original of a recipe without its weights, and the steps that commands make with it.

    Args:
        recipe: all settings.
        config: of the base.
        machine: where it would run.
        stored: whether a base below adapters is held as its files have it, and not in float32.

    Attributes:
        recipe: all settings.
        machine: where it would run.
        model: the recommender; with base + LoRA it carries the original's adapter.
        dtype: of the weights that are not quantised.
        weight_bytes: of the base, quantised where the recipe says so.
        adapter_bytes: of the original's adapter.
        low: precision of autocast; None: there is none.
    """

    def __init__(
        self, recipe: Recipe, config: Any, machine: Machine, *, stored: bool = True
    ) -> None:
        self.recipe = recipe
        self.machine = machine
        self.mode = without_values()
        # Below adapters the base stays as it is stored; see `load_frozen`.
        is_frozen = stored and recipe.tuning.lora is not None
        self.dtype = config.dtype if is_frozen else torch.float32
        # No CUDA device need be there: what is simulated is a CPU with a GPU's kernels.
        device = torch.device("cpu")
        precision = recipe.tuning.schedule.precision
        self.low = autocast_type(precision, device)
        if machine.is_gpu and precision != "fp32":
            self.low = torch.bfloat16
        lm = build_weightless(config, dtype=self.dtype, fused=machine.is_gpu)
        with self.mode:
            drop_values(lm)
            self.model = WeightlessRecommender(
                lm, name=recipe.model.name, window=recipe.model.window
            )
            self.parameter_count = self.model.parameter_count()
            self.weight_bytes = self._weight_bytes()
            before = tensor_bytes(self.model.parameters())
            if recipe.tuning.lora is not None:
                self.model.lm = attach_weightless(lm, "original", recipe.tuning.lora)
                self.model.active = ("original",)
            self.adapter_bytes = tensor_bytes(self.model.parameters()) - before

    def _weight_bytes(self) -> int:
        size = tensor_bytes(model_tensors(self.model))
        quantize = self.recipe.model.quantize
        if quantize is None:
            return size
        for layer in linear_layers(self.model.lm):
            size += quantised_bytes(layer, quantize) - tensor_bytes([layer.weight])
        return size

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of the largest layer of a quantised base: it is unpacked to be multiplied."""
        if self.recipe.model.quantize is None:
            return 0
        element_bytes = (self.low or self.dtype).itemsize
        with self.mode:
            sizes = [layer.weight.numel() for layer in linear_layers(self.model.lm)]
        return max(sizes) * element_bytes

    @property
    def precision(self) -> str:
        """Of the weights, in words."""
        name = str(self.dtype).removeprefix("torch.")
        quantize = self.recipe.model.quantize
        return name if quantize is None else f"{quantize}, the rest {name}"

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the output head knows."""
        return model_vocabulary(self.model)

    @property
    def head_bytes(self) -> int:
        """Bytes of the output head, which may be the embeddings as well."""
        return tensor_bytes([self.model.head.weight])

    @property
    def state_bytes(self) -> int:
        """Bytes of the state at one position, in float32."""
        return self.model.state_width * STATE_BYTES

    @property
    def padded_window(self) -> int:
        """Columns of a batch that holds a row as long as the window."""
        return math.ceil(self.recipe.model.window / COLUMN_MULTIPLE) * COLUMN_MULTIPLE

    # --- training

    @contextlib.contextmanager
    def tuned_parameters(self) -> Iterator[list[nn.Parameter]]:
        """Inside, what the recipe's tuning moves is trainable."""
        if self.recipe.tuning.lora is None:
            with self.all_parameters() as parameters:
                yield parameters
            return
        with self.mode, self.model.using(train="original") as parameters:
            yield parameters

    @contextlib.contextmanager
    def all_parameters(self) -> Iterator[list[nn.Parameter]]:
        """Inside, the whole model is trainable, as far as the recipe's tuning moves it."""
        tuning = self.recipe.tuning
        with self.mode, fully_trainable(self.model, embeddings=tuning.embeddings) as parameters:
            yield parameters

    def supervised_step(
        self, parameters: Sequence[nn.Parameter], batch_size: int, rows: Examples | None = None
    ) -> Peak:
        """A step on rows with known answers; by default the longest, nothing of them cached."""
        if rows is None:
            rows = self.rows(batch_size)
        objective = supervised(self.model, rows)
        return self._step(objective, {"train": np.arange(batch_size)}, parameters)

    # --- unlearning

    @contextlib.contextmanager
    def student(self, lora: LoRA) -> Iterator[list[nn.Parameter]]:
        """Inside, the original carries one more adapter, which is trainable."""
        model = self.model
        active = model.active
        with self.mode:
            model.lm = attach_weightless(model.lm, STUDENT, lora)
            with model.using((*active, STUDENT), train=STUDENT) as parameters:
                yield parameters
            model.lm = adapters.remove(model.lm, STUDENT)

    def student_step(
        self, parameters: Sequence[nn.Parameter], batch_size: int, rows: Examples, speed: Speed
    ) -> Peak:
        """A step on as many rows of D_f as of D_r, each with the answer of a teacher to learn."""
        task = self._task(rows)
        everything = torch.arange(len(rows))
        teacher = FrozenTeacher(
            torch.zeros(len(rows), self.model.state_width), self.model.head.detach(), everything
        )
        terms = {name: [teacher_loss(teacher)] for name in ("forget", "retain")}
        objective = Objective(side_by_side(task, terms, speed.together))
        index = np.arange(batch_size)
        return self._step(objective, {"forget": index, "retain": index}, parameters)

    def recorded_pass(self, batch_size: int) -> Peak:
        """A pass that tells the gradients of single rows, inside `student`."""
        lm = self.model.lm
        ups = adapters.up_projections(lm, STUDENT)
        # A stays as it is: what it makes of its input is kept, and not the input.
        lm.requires_grad_(False)
        for up in ups:
            up.requires_grad_(True)
        objective = supervised(self.model, self.rows(batch_size))
        # It keeps what blocks compute, whatever steps of training do.
        step = {"train": np.arange(batch_size)}
        return self._step(objective, step, ups, gradient_checkpointing=False)

    def first_block(self, lora: LoRA, speed: Speed) -> int:
        """Lowest block that is computed in a student's step."""
        return lora.first_block(self.model.lm) if speed.replay else 0

    def cached(self, rows: Examples, first_block: int) -> Examples:
        """Rows whose lower states are cached, if there are lower blocks."""
        if not first_block:
            return rows
        return replace(rows, cached=ShapedStates(self.model, first_block))

    def _task(self, rows: Examples) -> Task:
        no_rows = Examples.empty()
        return Task(
            original=self.model,
            base=None,
            tuning=self.recipe.tuning,
            forget=rows,
            retain=rows,
            valid=no_rows,
            calibration=no_rows,
            unseen=no_rows,
            seed=0,
        )

    # --- answering

    @torch.no_grad()
    def answering(self) -> Peak:
        """A batch of answers, with no gradient."""
        live = LiveBytes(self.model)
        with self.mode, self.model.using(), fused_attention(self.machine.is_gpu), live:
            batch = self.model.collate(self.rows(FORWARD_BATCH_SIZE), np.arange(FORWARD_BATCH_SIZE))
            with self._autocast():
                states = self.model.hidden(batch).float()
            self.model.verbaliser.log_odds_of(states, self.model.head)
        return live.peak

    # --- all of them

    def rows(self, count: int) -> Examples:
        """`count` rows of the longest length."""
        return examples_of_length(self.recipe.model.window, count)

    def _step(
        self, objective: Objective, step: Step, parameters: Sequence[nn.Parameter], **changes: bool
    ) -> Peak:
        """A step of an objective, by the recipe's schedule with `changes`."""
        precision = "fp32" if self.low is None else "bf16"
        schedule = self.recipe.tuning.schedule.model_copy(
            update={"precision": precision, **changes}
        )
        state = TrainingState.start(parameters, schedule)
        accelerator = Accelerator(cpu=True)
        gradients = StepGradients(self.model, objective, state, accelerator, "a step")
        live = LiveBytes(self.model, parameters)
        with self.mode, fused_attention(self.machine.is_gpu), live:
            gradients.leave(ProcessShare.of(step, accelerator))
        for parameter in parameters:
            parameter.grad = None
        return live.peak

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=self.low, enabled=self.low is not None)
