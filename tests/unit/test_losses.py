import math

import pytest
import torch

from e2urec.losses import cross_entropy, forgetting_teacher, kl_divergence
from e2urec.models.answers import Verbaliser

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
    assert torch.allclose(ANSWERS.log_odds(found), ANSWERS.log_odds(original) - 1.5 * gain, atol=1e-5)


def test_teacher_without_gain_is_the_original():
    original = torch.randn(4, 6)
    for space in ("raw", "logprob", "odds"):
        found = forgetting_teacher(original, original, 3.0, space, ANSWERS)
        assert torch.allclose(found.softmax(-1), original.softmax(-1), atol=1e-6)
