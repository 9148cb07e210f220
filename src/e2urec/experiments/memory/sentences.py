"""What a plan of memory took to be so, and what it does not count."""

from ...methods.retrain import Retrain
from ...unlearning.method import Method
from ..recipe import Recipe
from .moments import Machine, RowCounts


def has_student(method: Method) -> bool:
    """Whether a method makes one adapter on the original."""
    return not method.prepares and hasattr(method, "lora") and hasattr(method, "batch_size")


def plan_sentences(recipe: Recipe, method: Method, machine: Machine, rows: RowCounts) -> list[str]:
    """The sentences below a plan.

    Args:
        recipe: all settings.
        method: that honours requests.
        machine: whose memory it is.
        rows: that there are.
    """
    # On a CPU gaps are a part of the plan.
    further = ", gaps between tensors" if machine.is_gpu else ""
    sentences = [
        f"rows of {recipe.model.window} tokens (model.window) and {rows.train:,} training rows, of "
        f"which a request erases {rows.ratio:.0%}",
        f"not counted: Python and its libraries, the data{further}, and what kernels take",
    ]
    if not has_student(method) and not isinstance(method, Retrain):
        sentences.append(
            f"unlearn is not planned for method '{method.name}', which makes more than one "
            "student; plan another by --set method.name=…"
        )
    if recipe.scores.pairs and recipe.scores.tuning == "adapter":
        sentences.append("out-of-fold scores of train are not counted (scores.pairs=0: none)")
    if recipe.tuning.lora is None:
        sentences.append("shadow models of evaluate hold the base as well")
    return sentences
