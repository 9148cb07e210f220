from .actions import Asked, DryRun, dry_run, evaluate_run, look, score, train, unlearn
from .comparison import compare
from .errors import ConfigError, DataError, E2URecError, ModelError, RunError
from .methods import all_methods, build
from .recipe import Recipe
from .results import Comparison, Demonstration, Results
from .runs import Run, open_run
from .task import Method, Task

__version__: str

__all__ = [
    "Asked",
    "Comparison",
    "ConfigError",
    "DataError",
    "Demonstration",
    "DryRun",
    "E2URecError",
    "Method",
    "ModelError",
    "Recipe",
    "Results",
    "Run",
    "RunError",
    "Task",
    "all_methods",
    "build",
    "compare",
    "dry_run",
    "evaluate_run",
    "look",
    "open_run",
    "score",
    "train",
    "unlearn",
]
