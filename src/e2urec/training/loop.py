"""The only training loop: a plan of batches, an objective with named losses, a state to advance.

Everything random is a function of (seed, phase, step), so a run's position is one object,
`TrainingState`; from a checkpoint of it a run goes on.
"""

import math
import time
from collections.abc import Callable

from accelerate import Accelerator
from torch import nn

from ..core.allocator import release_free_memory
from ..core.errors import DivergenceError
from ..core.launch import join_processes
from ..core.process import process_count
from ..core.seeding import derive
from ..models.devices import default_device, seed_streams
from ..models.fsdp import is_split
from .micro_batches import StepGradients
from .objective import Combine, Losses, LossFunction, Objective, Rows, Step, StepPlan, weighted_sum
from .phase import Phase, Progress, silent
from .process_share import ProcessShare
from .schedule import OptimizerSettings, Schedule
from .state import Trace, TrainingState

# Other rooms import all that belongs to the loop from here.
__all__ = [
    "Combine",
    "LossFunction",
    "Losses",
    "Objective",
    "OptimizerSettings",
    "Phase",
    "Progress",
    "Rows",
    "Schedule",
    "Step",
    "StepPlan",
    "Trace",
    "TrainingState",
    "fit",
    "silent",
    "weighted_sum",
]


def fit(
    model: nn.Module,
    state: TrainingState,
    plan: StepPlan,
    objective: Objective,
    phase: Phase,
    monitor: Callable[[], float] | None = None,
) -> Trace:
    """Move the parameters of `state` down the objective.

    Args:
        model: given to the objective, wrapped for several processes where there are any. The caller
            sets modes.
        state: before its first step; it holds the parameters that move, and the schedule. From a
            checkpoint of the phase it is brought to where that was.
        plan: epoch → its steps, each naming the rows it reads.
        objective: named losses, and how their gradients become one.
        phase: name, seed, progress and checkpoints. The seed is that of dropout; batch order is
            the plan's.
        monitor: called after each epoch with the model in place; lower is better. With
            `schedule.patience` training stops early; with a monitor the best epoch's parameters are
            what remains.

    Returns:
        The trace; the parameters themselves are changed in place.

    Raises:
        DivergenceError: a loss is not finite, or a parameter after the last step.
    """
    start_time = time.perf_counter()
    accelerator = _accelerator()
    shared_model = _shared_model(model, objective, accelerator)
    gradients = StepGradients(shared_model, objective, state, accelerator, phase.name)
    if monitor:
        state.keep_parameters()
    # The learning rate depends on the number of all steps, so all epochs are planned first.
    epochs = [plan(epoch) for epoch in range(state.schedule.epochs)]
    total = sum(len(steps) for steps in epochs)
    call = {"phase": phase.name, "seed": phase.seed, "steps": total}
    if phase.checkpoints.enter(state, call):
        return state.trace
    # From a checkpoint, epochs and steps that were taken before it are not taken again.
    for steps in epochs[len(state.trace.losses) :]:
        for step in steps[state.epoch_steps :]:
            state.set_learning_rate(total)
            # Seeded anew at each step, so that dropout does not depend on what ran before.
            step_seed = derive(phase.seed, phase.name, state.step)
            seed_streams(step_seed, state.device)
            share = ProcessShare.of(step, accelerator)
            loss, losses = gradients.leave(share)
            share.agree_on_gradients(shared_model, objective, state.parameters)
            losses, value = share.means(losses, loss)
            if not math.isfinite(value):
                raise _divergence(f"where the loss is {value}", state, phase, total)
            state.advance(losses, step)
            release_free_memory(state.step)
            phase.progress(phase.name, state.step, total, value)
            phase.checkpoints.step(state)
        state.end_epoch(len(steps))
        if monitor:
            state.judge(monitor())
            if state.is_out_of_patience:
                break
    # A loss tells of the weights before its step; none tells of those after the last one.
    if not all(bool(parameter.isfinite().all()) for parameter in state.parameters):
        raise _divergence("after which a weight is no number", state, phase, total)
    if monitor:
        state.restore_best()
    state.trace.seconds = state.trace.earlier_seconds + time.perf_counter() - start_time
    phase.checkpoints.leave(state)
    return state.trace


def _divergence(reason: str, state: TrainingState, phase: Phase, total: int) -> DivergenceError:
    """The error of a phase that no further step brings back."""
    return DivergenceError(
        f"{phase.name}: diverged at step {min(state.step + 1, total)} of {total}, {reason}; lower "
        f"its learning rate, now at most {state.schedule.learning_rate:g}"
    )


def _accelerator() -> Accelerator:
    """What knows the other processes, if there are any."""
    if process_count() > 1:
        join_processes()
    # Accelerate remembers its first answer. All calls of a process give the same one, wherever
    # their models are.
    return Accelerator(cpu=default_device().type == "cpu")


def _shared_model(model: nn.Module, objective: Objective, accelerator: Accelerator) -> nn.Module:
    """`model`, wrapped so that several processes average their gradients."""
    if accelerator.num_processes == 1:
        return model
    # Other ways to combine losses ask for gradients themselves, which the wrapper does not see; nor
    # does it know the parts of a base that is split among processes.
    if objective.combine is not weighted_sum or is_split(model):
        return model
    wrapped: nn.Module = accelerator.prepare_model(model)
    return wrapped
