from .api.adopt import AdoptOptions, adopt
from .api.evaluate import EvaluationOptions, evaluate
from .api.export import Export, export
from .api.inspect import inspect_data
from .api.method_choice import choose_method
from .api.plan_memory import plan_memory
from .api.prepare import prepare
from .api.rehearse import RehearsalOptions, rehearsal_request, rehearse
from .api.request import RequestOptions
from .api.score import score
from .api.serving.swap_plan import SwapOptions
from .api.swap import swap
from .api.train import train
from .api.unlearn import DryRun, dry_run, unlearn
from .core.errors import ConfigError, DataError, E2URecError, ModelError, RunError, ServerError
from .evaluation.comparison import Comparison
from .evaluation.demonstration import Demonstration
from .evaluation.results import Results
from .evaluation.roles import (
    ORIGINAL,
    PLACEBO_RETAIN,
    PLACEBO_TEMPERATURE,
    UNLEARNED,
    Role,
    retrained,
)
from .experiments.comparison.compare import compare
from .experiments.memory.moments import MemoryPlan
from .experiments.recipe import Recipe
from .methods import all_methods, build
from .runs.folder import Run, open_run
from .runs.rehearsal import Rehearsal
from .runs.resumption import CheckpointOptions
from .runs.swaps import SwapRecord
from .unlearning.method import Method
from .unlearning.task import Task

__version__: str

__all__ = [
    "ORIGINAL",
    "PLACEBO_RETAIN",
    "PLACEBO_TEMPERATURE",
    "UNLEARNED",
    "AdoptOptions",
    "CheckpointOptions",
    "Comparison",
    "ConfigError",
    "DataError",
    "Demonstration",
    "DryRun",
    "E2URecError",
    "EvaluationOptions",
    "Export",
    "MemoryPlan",
    "Method",
    "ModelError",
    "Recipe",
    "Rehearsal",
    "RehearsalOptions",
    "RequestOptions",
    "Results",
    "Role",
    "Run",
    "RunError",
    "ServerError",
    "SwapOptions",
    "SwapRecord",
    "Task",
    "adopt",
    "all_methods",
    "build",
    "choose_method",
    "compare",
    "dry_run",
    "evaluate",
    "export",
    "inspect_data",
    "open_run",
    "plan_memory",
    "prepare",
    "rehearsal_request",
    "rehearse",
    "retrained",
    "score",
    "swap",
    "train",
    "unlearn",
]
