"""The multiple of an update at which an AUC is down to a goal: found in few tries, and no NaN."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from e2urec.unlearning.multiple import ROUNDS, TOLERANCE, Multiples

LABELS = np.arange(400) % 2
RANDOM = np.random.default_rng(0)
BEFORE = 1.5 * LABELS + RANDOM.normal(size=400)
UPDATE = 0.5 * RANDOM.normal(size=400) - LABELS


def search(odds_at, goal, largest):
    """What is found, what was reached, and the multiples that were tried."""
    tries = []

    def asked(multiple):
        tries.append(multiple)
        return odds_at(multiple)

    found, reached = Multiples(LABELS, asked, {0.0: BEFORE}).least(goal, largest)
    return found, reached, tries


def straight(multiple):
    return BEFORE + multiple * UPDATE


def bent(multiple):
    return BEFORE + (multiple + 0.4 * multiple**2) * UPDATE


@pytest.mark.parametrize("odds_at", [straight, bent])
@pytest.mark.parametrize("multiple", [0.3, 0.9, 1.7])
def test_search_comes_within_its_tolerance_in_few_tries(odds_at, multiple):
    goal = roc_auc_score(LABELS, odds_at(multiple))
    found, reached, tries = search(odds_at, goal, 2.0)
    assert reached == pytest.approx(roc_auc_score(LABELS, odds_at(found)))
    assert reached == pytest.approx(goal, abs=TOLERANCE)
    assert found == pytest.approx(multiple, abs=0.05)
    # Itself or the largest, and hardly more than two in between.
    assert len(tries) <= 4


def test_goal_that_no_multiple_comes_down_to_ends_at_the_largest():
    found, reached, tries = search(straight, 0.01, 2.0)
    assert found == 2.0
    assert reached == pytest.approx(roc_auc_score(LABELS, straight(2.0)))
    assert tries == [1.0, 2.0]


def test_what_is_not_a_number_lies_beyond_the_goal():
    def odds_at(multiple):
        return straight(multiple) if multiple <= 1.5 else np.full(400, np.nan)

    found, reached, tries = search(odds_at, 0.01, 2.0)
    assert found == 1.5
    assert reached == pytest.approx(roc_auc_score(LABELS, straight(1.5)))
    assert len(tries) <= 2 + ROUNDS


def test_where_no_multiple_is_a_number_the_original_stays():
    found, reached, _ = search(lambda multiple: np.full(400, np.nan), 0.6, 2.0)
    assert found == 0.0
    assert reached == pytest.approx(roc_auc_score(LABELS, BEFORE))


def test_answers_that_jump_end_at_the_side_nearer_to_the_goal():
    after = BEFORE - 1.5 * LABELS
    found, reached, tries = search(lambda c: BEFORE if c < 0.62 else after, 0.6, 2.0)
    assert found >= 0.62
    assert reached == pytest.approx(roc_auc_score(LABELS, after))
    assert len(tries) <= 2 + ROUNDS


@pytest.mark.parametrize("lead", [0.0005, 0.0019, 0.0021])
def test_the_original_is_near_to_no_goal_however_little_it_has_to_come_down(lead):
    goal = roc_auc_score(LABELS, BEFORE) - lead
    found, reached, _ = search(straight, goal, 2.0)
    assert 0 < found < 0.1
    assert reached == pytest.approx(goal, abs=TOLERANCE)


def test_auc_that_comes_down_and_rises_again_is_found_where_it_is_low():
    def there_and_back(multiple):
        return BEFORE + (multiple - 0.3 * multiple**2) * UPDATE

    lowest = roc_auc_score(LABELS, there_and_back(1.667))
    found, reached, _ = search(there_and_back, lowest + 0.01, 4.0)
    assert reached == pytest.approx(lowest + 0.01, abs=0.01)
    assert 1 < found < 2.3
    # What no multiple reaches ends where it is least.
    found, reached, _ = search(there_and_back, lowest - 0.1, 4.0)
    assert found == pytest.approx(1.667, abs=0.2)
    assert reached == pytest.approx(lowest, abs=0.005)
