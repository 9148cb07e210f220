"""Make an LLM-based recommender forget users, and show that it did: E2URec (arXiv 2403.03536) and beyond."""

from .actions import Asked, DryRun, dry_run, evaluate_run, score, train, unlearn
from .demo import demo
from .errors import ConfigError, DataError, E2URecError, ModelError, RunError
from .fetch import fetch
from .methods import build, methods
from .recipe import Recipe
from .results import Demonstration, Results
from .runs import Run, open_run
from .task import Method, Task

__version__ = "0.1.0"

__all__ = [
    "Asked",
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
    "build",
    "demo",
    "dry_run",
    "evaluate_run",
    "fetch",
    "methods",
    "open_run",
    "score",
    "train",
    "unlearn",
]
