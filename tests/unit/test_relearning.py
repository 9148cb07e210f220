"""What comes back: steps off curves worked by hand, toy models relearned, merged and rounded."""

import numpy as np
import pytest
import torch

from e2urec.evaluation.relearning import Relearner, Relearning, reshaped, steps_until
from e2urec.models.adapters import LoRA
from e2urec.models.predictions import predict
from e2urec.testing import toy_task

HOW = Relearning(steps=30, every=10, batch_size=8, learning_rate=2e-3, lora=LoRA(rank=4))


def test_steps_lie_between_two_looks_and_are_censored():
    looks = [
        np.array([0.8, 0.4, 0.8]),
        np.array([0.6, 0.3, 0.7]),
        np.array([0.2, 0.2, 0.6]),
        np.array([0.1, 0.1, 0.5]),
    ]
    goal = np.array([0.5, 0.5, 0.4])  # a quarter of the way from 0.6 to 0.2; at once; never
    how = Relearning(steps=55, every=20)
    assert steps_until(looks, goal, how) == pytest.approx([25, 0, 55])
    assert np.isnan(steps_until(looks, np.full(3, np.nan), how)).all()


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_relearning_lowers_the_loss_and_leaves_the_model_as_it_was(kind, lora):
    task = toy_task(kind, lora=lora)
    model, before = task.original, task.original.score(task.forget)
    weights = {name: value.clone() for name, value in model.lm.state_dict().items()}
    answers = predict(model, task.forget, precision="fp32")
    losses = Relearner(task.forget, answers, HOW, seed=0, precision="fp32").losses(model)
    assert len(losses) == 4
    assert losses[-1][0] < losses[0][0]
    assert np.array_equal(model.score(task.forget), before)
    assert set(weights) == set(model.lm.state_dict())
    assert all(torch.equal(value, weights[name]) for name, value in model.lm.state_dict().items())


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_merged_and_rounded_models_answer_nearly_as_before_and_the_model_stays(lora):
    pytest.importorskip("torchao")
    task = toy_task("causal", lora=lora)
    before = predict(task.original, task.forget, precision="fp32").log_odds
    found = {
        name: predict(model, task.forget, precision="fp32").log_odds
        for name, model in reshaped(task.original)
    }
    assert list(found) == (["merged", "int8"] if lora else ["int8"])
    if lora:
        assert np.allclose(found["merged"], before, atol=1e-4)
    assert not np.array_equal(found["int8"], before)
    assert np.allclose(found["int8"], before, atol=0.2)
    assert np.array_equal(predict(task.original, task.forget, precision="fp32").log_odds, before)
