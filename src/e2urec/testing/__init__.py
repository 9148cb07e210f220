"""Toy models, tables and tasks for tests: for ours, and for authors of methods and data sources.

Everything here is small, is made on the spot, and comes out the same for the same seed. Nothing is
fetched, and no test framework is needed. `check_method` runs a method through what every method
owes:

    from e2urec.testing import check_method

    def test_my_method_keeps_the_contract():
        check_method(MyMethod(epochs=1))
"""

from .checks import check_method, check_reproducible, check_settings, check_unlearning
from .models import Kind, toy_backbone, toy_recommender, toy_tokenizer
from .tables import toy_interactions, toy_tables
from .tasks import TUNING, toy_task, toy_task_for

__all__ = [
    "TUNING",
    "Kind",
    "check_method",
    "check_reproducible",
    "check_settings",
    "check_unlearning",
    "toy_backbone",
    "toy_interactions",
    "toy_recommender",
    "toy_tables",
    "toy_task",
    "toy_task_for",
    "toy_tokenizer",
]
