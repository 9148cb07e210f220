"""Plan the memory of train, unlearn and evaluate before anything is loaded.

Not to be confused with `comparison/plan.py`, which lists the cells of a comparison.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import nn

from ...methods.finetune import Finetune
from ...methods.retrain import Retrain
from ...models.batches import row_count_of_steps
from ...models.live_bytes import Peak, tensor_bytes
from ...unlearning.gauss_newton import adapter_shapes, solving_bytes
from ...unlearning.method import Method
from ...unlearning.replay import Speed
from ...unlearning.two_teachers import TwoTeachers
from ..recipe import Recipe, method_of
from ..study import SHARED_SETTINGS
from .levers import Lever, levers_of, search_remedy
from .moments import CommandMemory, Machine, MemoryPlan, Moment, RowCounts
from .sentences import has_student, plan_sentences
from .simulated_steps import STATE_BYTES, SimulatedModel, optimizer_bytes

# As in `metrics/distances.py`: so many rows at a time, and so many arrays of their logits.
DISTANCE_ROWS = 256
DISTANCE_ARRAYS = 8
# As in `unlearning/teachers.py`: where the state of a row stands, of rows without one as well.
PLACE_BYTES = 8
# Measured with glibc 2.36, by `benchmarks/memory.py`. An aligned tensor does not fit into the gap
# that one of its own size has left, so each that is freed between two that stay leaves one.
GAP_SHARE = 1.0
"""Bytes of gaps for each byte of a step's smaller tensors, on a CPU."""
Parts = dict[str, int]


def plan_commands(
    recipe: Recipe,
    config: Any,
    machine: Machine,
    rows: RowCounts,
    *,
    trained: bool = False,
    unpacked: bool = False,
) -> MemoryPlan:
    """The parts of each command's memory at its peak, and settings by which it would fit.

    Args:
        recipe: all settings.
        config: of the base, as Transformers has it.
        machine: whose memory it is.
        rows: that there are.
        trained: whether the original is there already; then only a method's settings can change.
        unpacked: whether the base comes out of a GGUF file.
    """
    planner = Planner(recipe, config, machine, rows)
    commands = []
    for name, plan_of in COMMANDS.items():
        plan = plan_of(planner)
        if plan is None:
            continue
        if not plan.fits(machine):
            is_fixed = trained and name != "train"
            levers = levers_of(name, is_fixed=is_fixed, is_unpacked=unpacked)
            plan = replace(plan, remedy=_remedy(name, planner, levers))
        commands.append(plan)
    simulated = planner.simulated
    return MemoryPlan(
        model=recipe.model.name,
        parameters=simulated.parameter_count,
        precision=simulated.precision,
        machine=machine,
        window=recipe.model.window,
        rows=rows.train,
        commands=tuple(commands),
        sentences=tuple(plan_sentences(planner.recipe, planner.method, machine, rows)),
    )


def _remedy(command: str, planner: "Planner", levers: Sequence[Lever]) -> tuple[str, ...]:
    """Those of `levers` by which `command` would fit; none where no setting helps enough."""

    def fits(recipe: Recipe) -> bool:
        trial = Planner(recipe, planner.config, planner.machine, planner.rows)
        plan = COMMANDS[command](trial)
        return plan is not None and plan.fits(planner.machine)

    return search_remedy(levers, planner.recipe, fits)


class Planner:
    """Plans the commands of one recipe.

    Args:
        recipe: all settings.
        config: of the base.
        machine: whose memory it is.
        rows: that there are.
    """

    def __init__(self, recipe: Recipe, config: Any, machine: Machine, rows: RowCounts) -> None:
        self.recipe = recipe
        self.config = config
        self.machine = machine
        self.rows = rows
        self.simulated = SimulatedModel(recipe, config, machine)
        self.lora = recipe.tuning.lora

    @cached_property
    def method(self) -> Method:
        """The recipe's, as it honours a request of the planned size."""
        rows = self.rows
        return method_of(self.recipe).suited(rows.forget, rows.retain, self.simulated.model.lm)

    # --- commands

    def train(self) -> CommandMemory:
        """Tune the original."""
        # The base stays as it is; what is tuned in full is a copy of it. When half models are tuned
        # for out-of-fold scores the original is gone, so they take no more.
        return CommandMemory("train", (self._tuning("a step of training", copies=0),))

    def unlearn(self) -> CommandMemory | None:
        """Forget a request, as the recipe's method does; None: its memory is not planned."""
        method = self.method
        if isinstance(method, Retrain):
            # The original answers before, and stays while a copy of its base is tuned.
            original = 0 if self.lora else 1
            return CommandMemory("unlearn", (self._tuning("a step of retraining", original),))
        if not has_student(method):
            return None
        moments = [self._answering("answers of a model", {})]
        if isinstance(method, TwoTeachers) and method.forgetting == "gain":
            moments.append(self._augmented(method))
        moments.append(self._student(method))
        return CommandMemory("unlearn", tuple(moments), self._cache_bytes(method))

    def evaluate(self) -> CommandMemory:
        """Ask the original, make the placebo of it, and ask the other models, one at a time."""
        answers = {"answer_states": self._answer_states(models=2)}
        moments = [
            self._answering("answers of a model", answers),
            self._placebo(self.method, answers),
        ]
        if not self.machine.is_gpu:
            distances = answers | {"distances": self._distance_bytes()}
            if self.lora:
                distances |= self._model()
            else:
                # Answers of a model that is gone hold a copy of its head.
                head = self.simulated.head_bytes
                held = answers | {"heads": head}
                moments.append(self._answering("answers of the next model", held))
                distances |= {"heads": 2 * head}
            moments.append(Moment("distances between answers", distances))
        return CommandMemory("evaluate", tuple(moments))

    # --- moments

    def _tuning(self, title: str, copies: int) -> Moment:
        """A step of the recipe's own tuning; `copies` are there besides the base and what it tunes.

        Tuned in full, the copy comes on top of the base.
        """
        schedule = self.recipe.tuning.schedule
        with self.simulated.tuned_parameters() as parameters:
            peak = self.simulated.supervised_step(parameters, schedule.batch_size)
            parts = self._model() | self._step_parts(peak)
            parts["optimizer"] = optimizer_bytes(parameters)
            if schedule.patience is not None:
                parts["best_epoch"] = tensor_bytes(parameters)
        copies += 0 if self.lora else 1
        if copies:
            parts["copies"] = copies * self.simulated.weight_bytes
        return Moment(title, parts)

    def _augmented(self, method: TwoTeachers) -> Moment:
        """A step of the augmented model: an adapter, or a full copy."""
        title = "a step of the augmented model"
        parts = self._model() | {"teacher_states": self._teacher_states(method)}
        if method.augment == "full":
            # A copy that is tuned is in float32, whatever the original is held in.
            whole = SimulatedModel(self.recipe, self.config, self.machine, stored=False)
            with whole.all_parameters() as parameters:
                peak = whole.supervised_step(parameters, method.batch_size)
                parts["copies"] = whole.weight_bytes
                parts["optimizer"] = optimizer_bytes(parameters)
            return Moment(title, parts | self._step_parts(peak))
        return self._adapter_step(title, method, parts, joined=False)

    def _student(self, method: Any) -> Moment:
        if isinstance(method, TwoTeachers) and method.is_solved(self.rows.forget):
            return self._solving(method)
        parts = self._model() | {"teacher_states": self._teacher_states(method)}
        return self._adapter_step("a step of the student", method, parts, joined=True)

    def _solving(self, method: TwoTeachers) -> Moment:
        """A batch whose rows' gradients are taken apart, beside those of all rows."""
        simulated = self.simulated
        shapes = adapter_shapes(simulated.model.lm, method.lora)
        row_count = self._read_rows(method)
        parts = self._model()
        parts["row_gradients"] = solving_bytes(shapes, row_count, method.solving.memory_gb)
        with simulated.student(method.lora) as parameters:
            peak = simulated.recorded_pass(self.recipe.tuning.schedule.rows_at_once)
            parts["adapters"] += tensor_bytes(parameters)
        return Moment("gradients of single rows", parts | self._step_parts(peak))

    def _placebo(self, method: Any, answers: Parts) -> Moment:
        """A step of the placebo on the original, by the method's own batch size and adapter."""
        shared = {name: getattr(method, name) for name in SHARED_SETTINGS if hasattr(method, name)}
        placebo = Finetune(**shared)
        parts = self._model() | answers
        with self.simulated.student(placebo.lora) as parameters:
            peak = self.simulated.supervised_step(parameters, placebo.batch_size)
            self._add_student(parts, parameters, peak)
        return Moment("a step of the placebo", parts)

    def _adapter_step(self, title: str, method: Any, parts: Parts, *, joined: bool) -> Moment:
        """A step of one more adapter, with the lower blocks replayed where they are cached.

        Args:
            title: of the moment.
            method: whose settings decide.
            parts: what is there besides.
            joined: whether it reads rows of D_f and of D_r with teachers, or of D_f alone.
        """
        simulated = self.simulated
        speed = getattr(method, "speed", Speed())
        size = method.batch_size
        with simulated.student(method.lora) as parameters:
            first_block = simulated.first_block(method.lora, speed)
            rows = simulated.cached(simulated.rows(size), first_block)
            if joined:
                peak = simulated.student_step(parameters, size, rows, speed)
            else:
                peak = simulated.supervised_step(parameters, size, rows)
            self._add_student(parts, parameters, peak)
        if first_block:
            passes = 2 if joined and speed.together == "step" else 1
            states = passes * size * simulated.padded_window * simulated.state_bytes
            parts["replayed_states"] = states
            parts["activations"] -= states
        return Moment(title, parts)

    def _answering(self, title: str, answers: Parts) -> Moment:
        parts = self._model() | answers
        return Moment(title, parts | self._step_parts(self.simulated.answering()))

    # --- parts

    def _model(self) -> Parts:
        """Weights and adapters of the one model that is there."""
        simulated = self.simulated
        return {
            "weights": simulated.weight_bytes,
            "unpacked": simulated.unpacked_bytes,
            "adapters": simulated.adapter_bytes,
        }

    def _step_parts(self, peak: Peak) -> Parts:
        # A GPU's memory is PyTorch's own to divide.
        gaps = 0 if self.machine.is_gpu else round(GAP_SHARE * peak.heap)
        return {
            "activations": peak.activations,
            "logits": peak.logits,
            "gradients": peak.gradients,
            "gaps": gaps,
        }

    def _add_student(self, parts: Parts, parameters: Sequence[nn.Parameter], peak: Peak) -> None:
        """Add one more adapter with these parameters, and its step."""
        parts |= self._step_parts(peak)
        parts["adapters"] += tensor_bytes(parameters)
        parts["optimizer"] = optimizer_bytes(parameters)

    def _teacher_states(self, method: Any) -> int:
        """The original's answers to rows that are read, and the augmented model's to D_f.

        A method is taken to have a teacher for both sets, though some have one or none.
        """
        if not getattr(method, "speed", Speed()).kept_teachers:
            return 0
        count = self._read_rows(method)
        row_count = self.rows.train
        if isinstance(method, TwoTeachers) and method.forgetting == "gain":
            count += self.rows.forget
            row_count += self.rows.forget
        return count * self.simulated.state_bytes + row_count * PLACE_BYTES

    def _read_rows(self, method: Any) -> int:
        """Rows that a student's steps read: all of D_f, and what they need of D_r."""
        forget = self.rows.forget
        retain = self.rows.retain
        if isinstance(method, TwoTeachers):
            if method.is_solved(forget):
                return method.solved_count(forget, retain)
            steps = method.student_steps(forget)["joint"]
        else:
            steps = method.updates(forget, retain, self.recipe.tuning.schedule)
        return forget + min(retain, row_count_of_steps(steps, retain, method.batch_size))

    def _answer_states(self, models: int) -> int:
        # Answers are NumPy's, in the computer's own memory.
        if self.machine.is_gpu:
            return 0
        return models * self.rows.forget * self.simulated.state_bytes

    def _distance_bytes(self) -> int:
        rows = min(DISTANCE_ROWS, self.rows.forget)
        return DISTANCE_ARRAYS * rows * self.simulated.vocabulary_size * STATE_BYTES

    def _cache_bytes(self, method: Any) -> int:
        """Bytes on the disk of the lower states of the rows that are read."""
        speed = getattr(method, "speed", Speed())
        with self.simulated.student(method.lora):
            first_block = self.simulated.first_block(method.lora, speed)
        if not first_block:
            return 0
        tokens = self._read_rows(method) * self.recipe.model.window
        element_bytes = 2 if self.simulated.low is not None else STATE_BYTES
        size = tokens * self.simulated.model.state_width * element_bytes
        return min(size, int(speed.cache_gb * 1e9))


COMMANDS: Mapping[str, Callable[[Planner], CommandMemory | None]] = {
    "train": Planner.train,
    "unlearn": Planner.unlearn,
    "evaluate": Planner.evaluate,
}
