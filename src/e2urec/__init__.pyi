from .api import DryRun, RequestOptions, dry_run, evaluate_run, inspect_data, score, train, unlearn
from .core.errors import ConfigError, DataError, E2URecError, ModelError, RunError
from .evaluation.results import Comparison, Demonstration, Results
from .experiments.compare import compare
from .experiments.recipe import Recipe
from .methods import all_methods, build
from .runs.folder import Run, open_run
from .unlearning.method import Method
from .unlearning.task import Task

__version__: str

__all__ = [
    "Comparison",
    "ConfigError",
    "DataError",
    "Demonstration",
    "DryRun",
    "E2URecError",
    "Method",
    "ModelError",
    "Recipe",
    "RequestOptions",
    "Results",
    "Run",
    "RunError",
    "Task",
    "all_methods",
    "build",
    "compare",
    "dry_run",
    "evaluate_run",
    "inspect_data",
    "open_run",
    "score",
    "train",
    "unlearn",
]
