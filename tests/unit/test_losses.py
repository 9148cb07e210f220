import math

import pytest
import torch

from e2urec.methods import build
from e2urec.methods.pcgrad import surgery
from e2urec.models.verbaliser import Verbaliser
from e2urec.testing import toy_task
from e2urec.unlearning import losses
from e2urec.unlearning.losses import (
    cross_entropy,
    forgetting_teacher,
    kl_divergence,
    npo,
    reduce_gain,
    simnpo,
    with_odds,
)

ANSWERS = Verbaliser(yes=0, no=1)


def test_kl_divergence_of_a_hand_worked_pair():
    target, z = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.5, 0.25]]).log()
    assert kl_divergence(target, z).item() == pytest.approx(0.25 * math.log(2))


def test_kl_divergence_ignores_constants_added_to_logits():
    a, b = torch.randn(3, 5), torch.randn(3, 5)
    assert kl_divergence(a + 7, b - 3).item() == pytest.approx(kl_divergence(a, b).item(), abs=1e-6)


def test_cross_entropy_of_a_hand_worked_row():
    z = torch.tensor([[0.7, 0.2, 0.1]]).log()
    assert cross_entropy(z, torch.tensor([1])).item() == pytest.approx(-math.log(0.2))


def test_raw_teacher_takes_off_alpha_times_the_gain_and_nothing_else():
    original, augmented = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[3.0, 1.0, 0.5]])
    found = forgetting_teacher(original, augmented, 2.0, "raw", ANSWERS)
    assert torch.equal(found, torch.tensor([[-3.0, 2.0, -1.0]]))


def test_only_the_raw_teacher_depends_on_a_constant_added_to_the_augmented_model():
    original, augmented = torch.randn(4, 6), torch.randn(4, 6)
    for space, same in (("raw", False), ("logprob", True), ("odds", True)):
        a = forgetting_teacher(original, augmented, 2.0, space, ANSWERS).log_softmax(-1)
        b = forgetting_teacher(original, augmented + 5, 2.0, space, ANSWERS).log_softmax(-1)
        assert torch.allclose(a, b, atol=1e-5) is same


def test_odds_teacher_moves_the_answers_and_leaves_every_other_token_alone():
    original, augmented = torch.randn(4, 6), torch.randn(4, 6)
    found = forgetting_teacher(original, augmented, 1.5, "odds", ANSWERS)
    before, after = original.softmax(-1), found.softmax(-1)
    assert torch.allclose(before[:, 2:], after[:, 2:], atol=1e-6)
    gain = ANSWERS.log_odds(augmented) - ANSWERS.log_odds(original)
    assert torch.allclose(
        ANSWERS.log_odds(found), ANSWERS.log_odds(original) - 1.5 * gain, atol=1e-5
    )


def test_log_odds_of_the_gains_teacher_by_hand():
    original, augmented = torch.tensor([1.0, -1.0]), torch.tensor([3.0, -1.5])
    assert torch.equal(reduce_gain(original, augmented, 0.5), torch.tensor([0.0, -0.75]))


def test_what_the_published_function_returns_is_what_the_gains_teacher_teaches(monkeypatch):
    task = toy_task("causal")
    build("e2urec", preset="gain").unlearn(task)
    teacher = task.phase_logs[1]
    assert teacher.phase == "teacher"
    monkeypatch.setattr(losses, "reduce_gain", lambda original, augmented, alpha: original + 100.0)
    changed_task = toy_task("causal")
    build("e2urec", preset="gain").unlearn(changed_task)
    changed = changed_task.phase_logs[1]
    # Rows that were disliked now cost about 100 nats each.
    assert changed.forget_log_loss > 10 > teacher.forget_log_loss
    # The student follows, in a few steps some of the way.
    assert changed_task.phase_logs[-1] != task.phase_logs[-1]


def test_teacher_without_gain_is_the_original():
    original = torch.randn(4, 6)
    for space in ("raw", "logprob", "odds"):
        found = forgetting_teacher(original, original, 3.0, space, ANSWERS)
        assert torch.allclose(found.softmax(-1), original.softmax(-1), atol=1e-6)


# Two rows over three tokens; the answers' probabilities are ½ and ¼.
Z, Y = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])), torch.tensor([0, 1])


def test_npo_by_hand():
    reference = torch.log(torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.5, 0.25]]))
    # p/p_o is 2 and ½: −(2/β)·log σ(−β·log 2) and −(2/β)·log σ(β·log 2), which with β = 1 are
    # log 3 and log 1.5, doubled.
    expected = (2 * math.log(3) + 2 * math.log(1.5)) / 2
    assert npo(Z, reference, Y, beta=1.0).item() == pytest.approx(expected, rel=1e-6)
    assert npo(Z, Z, Y, beta=0.1).item() == pytest.approx(20 * math.log(2), rel=1e-6)


def test_npo_nears_ascent_on_the_cross_entropy_as_beta_falls():
    z = Z.clone().requires_grad_()
    (ascent,) = torch.autograd.grad(-cross_entropy(z, Y), z)
    (npo_gradient,) = torch.autograd.grad(npo(z, Z, Y, beta=1e-4), z)
    assert torch.allclose(npo_gradient, ascent, atol=1e-4)


def test_simnpo_by_hand():
    # NLL is log 2 and log 4; −2·log σ(log 2) = 2·log 1.5, −2·log σ(log 4) = 2·log 1.25.
    assert simnpo(Z, Y, beta=1.0, delta=0.0).item() == pytest.approx(
        math.log(1.5) + math.log(1.25), rel=1e-6
    )
    # δ = log 2 leaves 0 and log 2.
    assert simnpo(Z, Y, beta=1.0, delta=math.log(2)).item() == pytest.approx(
        math.log(2) + math.log(1.5), rel=1e-6
    )


def test_with_odds_sets_the_odds_and_keeps_the_mass_of_both_answers():
    even = with_odds(torch.randn(4, 6), torch.zeros(4), ANSWERS)
    assert torch.allclose(ANSWERS.log_odds(even), torch.zeros(4), atol=1e-6)
    assert torch.allclose(even.exp().sum(-1), torch.ones(4), atol=1e-5)


def test_surgery_by_hand():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    # ⟨a, b⟩ = −1: a + b/2 = (½, ½), b + a = (0, 1); their mean is (¼, ¾).
    assert torch.allclose(surgery(a, b), torch.tensor([0.25, 0.75]))
    assert torch.allclose(surgery(a, torch.tensor([1.0, 1.0])), torch.tensor([1.0, 0.5])), (
        "no conflict, no change"
    )
    assert torch.equal(surgery(a, torch.zeros(2)), a / 2)
