"""Each rival's two terms, against numbers worked by hand from one row of logits."""

import math

import numpy as np
import pytest
import torch

from e2urec.core.errors import ConfigError
from e2urec.methods import build
from e2urec.models.batches import Batch
from e2urec.models.predictions import answer_states
from e2urec.testing import toy_task

LIKED, DISLIKED = torch.tensor([1]), torch.tensor([0])
NLL = {1: math.log(2), 0: math.log(4)}


@pytest.fixture(scope="module")
def task():
    return toy_task("causal")


def row(task, label: torch.Tensor) -> tuple[torch.Tensor, Batch]:
    """Logits with P(Yes) = ½ and P(No) = ¼, and a batch of one row, the first, with this label."""
    z = torch.full((1, len(task.original.tokenizer)), -1e4)
    z[0, task.original.verbaliser.yes] = -NLL[1]
    z[0, task.original.verbaliser.no] = -NLL[0]
    z[0, 5] = math.log(0.25)
    none = torch.zeros(1, dtype=torch.int64)
    return z, Batch(none, none, none, label, none)


def terms(task, name: str, **settings: object):
    steps = [{"forget": np.arange(2), "retain": np.arange(2)}]
    return build(name, settings).terms(task, steps)


@pytest.mark.parametrize(
    ("name", "settings", "forget", "retain"),
    [
        ("neggrad", {"weight": 0.2}, -0.2 * NLL[1], NLL[0]),
        ("graddiff", {"gamma": 0.5, "alpha": 3.0}, -0.5 * NLL[1], 3 * NLL[0]),
        ("relabel", {"weight": 0.2}, 0.2 * NLL[0], NLL[0]),
        ("pcgrad", {}, -NLL[1], NLL[0]),
        # −(2/1)·log σ(log 2) = 2·log 1.5, an eighth of it
        ("simnpo", {"gamma": 0.125, "beta": 1.0}, 0.25 * math.log(1.5), NLL[0]),
    ],
)
def test_terms_by_hand(task, name, settings, forget, retain):
    losses = terms(task, name, **settings)
    assert losses["forget"](*row(task, LIKED)).item() == pytest.approx(forget, rel=1e-5)
    assert losses["retain"](*row(task, DISLIKED)).item() == pytest.approx(retain, rel=1e-5)


def logits(task, rows) -> torch.Tensor:
    """What the original answers about the first row of a set."""
    return task.original.to_logits(
        answer_states(task.original, rows.take(np.arange(2)), precision="fp32")
    )[:1]


def test_npo_refers_to_the_original(task):
    z, batch = row(task, LIKED)
    before = logits(task, task.forget).log_softmax(-1)[0, task.original.verbaliser.yes].item()
    gained = -NLL[1] - before
    expected = -2 / 0.1 * math.log(1 / (1 + math.exp(0.1 * gained)))
    assert terms(task, "npo")["forget"](z, batch).item() == pytest.approx(expected, rel=1e-4)
    same = terms(task, "npo")["forget"](logits(task, task.forget), batch)
    assert same.item() == pytest.approx(20 * math.log(2), rel=1e-4)


@pytest.mark.parametrize(("name", "settings"), [("badt", {}), ("graddiff", {"retain": "kl"})])
def test_original_is_its_own_teacher_on_retained_rows(task, name, settings):
    _, batch = row(task, LIKED)
    retain = terms(task, name, **settings)["retain"]
    assert retain(logits(task, task.retain), batch).item() == pytest.approx(0, abs=1e-5)
    assert retain(row(task, LIKED)[0], batch).item() > 0.1


def test_even_bad_teacher_keeps_the_mass_of_both_answers_and_asks_for_even_odds(task):
    _, batch = row(task, LIKED)
    z = logits(task, task.forget)
    answers = task.original.verbaliser
    p = z.softmax(-1)[0]
    even = z.clone()
    even[0, [answers.yes, answers.no]] = ((p[answers.yes] + p[answers.no]) / 2).log() + z.logsumexp(
        -1
    )[0]
    forget = terms(task, "badt", teacher="uniform")["forget"]
    assert forget(even, batch).item() == pytest.approx(0, abs=1e-5)
    assert forget(z, batch).item() > 1e-4


def test_bad_teachers_differ_from_the_original_and_from_each_other(task):
    _, batch = row(task, LIKED)
    z = logits(task, task.forget)
    losses = {
        kind: terms(task, "badt", teacher=kind)["forget"](z, batch).item()
        for kind in ("base", "random")
    }
    assert min(losses.values()) > 1e-3
    assert losses["base"] != losses["random"]


def test_bad_teacher_without_a_base_says_what_to_do(task):
    base, task.base = task.base, None
    try:
        with pytest.raises(ConfigError, match="teacher=uniform"):
            terms(task, "badt")
    finally:
        task.base = base
