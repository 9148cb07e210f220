"""What every method owes, as checks that raise `AssertionError` in one line.

The contract tests of this package run these checks for each of its methods.
"""

import numpy as np
import torch

from ..core.arrays import Floats
from ..models.adapters import names
from ..models.recommender import Recommender
from ..unlearning.method import Method
from .models import Kind
from .tasks import toy_task_for


def check_method(method: Method, kind: Kind = "causal", *, lora: bool = False) -> None:
    """Run a method through all that every method owes, on toy tasks.

    It unlearns four times, in seconds if the method's settings are small (few epochs, low rank).

    Args:
        method: with the settings to try.
        kind: of the toy model.
        lora: whether the original is base + LoRA and not fully tuned.

    Raises:
        AssertionError: the method breaks the contract; the message says how.
    """
    check_settings(method)
    check_unlearning(method, kind, lora=lora)
    check_reproducible(method, kind, lora=lora)


def check_settings(method: Method) -> None:
    """Check that settings survive a round trip through JSON, and that all are described.

    Raises:
        AssertionError: they do not, or one is not.
    """
    cls = type(method)
    loaded = cls.model_validate_json(method.model_dump_json())
    _check(loaded == method, method, "settings change on their way through JSON")
    _check(bool(cls.__doc__), method, "the class has no docstring")
    for field_name, field in cls.model_fields.items():
        _check(bool(field.description), method, f"setting '{field_name}' has no description")


def check_unlearning(method: Method, kind: Kind = "causal", *, lora: bool = False) -> None:
    """Check that a method changes the scores, leaves one whole model, and spares the base.

    The model must hold no adapter but those it uses, at most one for an original tuned as
    base + LoRA and none for a fully tuned one (methods that prepare an original of their own
    are free in that), and none of its parameters may still require a gradient.

    Raises:
        AssertionError: the method does not; the message says which part.
    """
    task = toy_task_for(method, kind, lora=lora)
    assert task.base is not None
    scores_before = task.original.score(task.forget)
    base_before = _weights(Recommender(task.base, task.original.template))

    model = method.unlearn(task)

    scores = model.score(task.forget)
    _check(bool(np.isfinite(scores).all()), method, "a score is not finite")
    _check(not np.array_equal(scores, scores_before), method, "the scores did not change")
    adapters = names(model.lm)
    _check(
        adapters == list(model.active),
        method,
        f"the model holds the adapters {adapters} and uses {list(model.active)}",
    )
    if not method.prepares:
        _check(
            len(adapters) == int(lora),
            method,
            f"the model has {len(adapters)} adapters, and must have {int(lora)}",
        )
    trainable = any(parameter.requires_grad for parameter in model.lm.parameters())
    _check(not trainable, method, "a parameter of the model still requires a gradient")
    for key, value in task.base.lm.state_dict().items():
        if key in base_before:
            unchanged = torch.equal(value, base_before[key])
            _check(unchanged, method, f"the base's weights '{key}' changed")
    for phase, seconds in task.costs.seconds.items():
        _check(bool(np.isfinite(seconds)), method, f"phase '{phase}' took {seconds} seconds")


def check_reproducible(method: Method, kind: Kind = "causal", *, lora: bool = False) -> None:
    """Check that the same seed gives the same scores, bit for bit, and another seed others.

    Raises:
        AssertionError: it does not.
    """
    scores, again, other = (_unlearned_scores(method, kind, lora, seed) for seed in (5, 5, 6))
    _check(np.array_equal(scores, again), method, "the same seed gave other scores")
    _check(not np.array_equal(scores, other), method, "another seed gave the same scores")


def _unlearned_scores(method: Method, kind: Kind, lora: bool, seed: int) -> Floats:
    task = toy_task_for(method, kind, lora=lora, seed=seed)
    # The forget set does not depend on the seed, so scores of two seeds are of the same rows.
    return method.unlearn(task).score(task.forget)


def _weights(model: Recommender) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.lm.state_dict().items()}


def _check(holds: bool, method: Method, complaint: str) -> None:
    """Raise `AssertionError`, as `assert` would, also under `python -O`."""
    if not holds:
        raise AssertionError(f"method '{method.name}': {complaint}")
