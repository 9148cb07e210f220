"""The evaluation on made-up answers of which the truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from e2urec.cli.terminal import show_results
from e2urec.evaluation import measures
from e2urec.evaluation.answers import Answers, softened
from e2urec.evaluation.evaluate import evaluate
from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.roles import (
    ORIGINAL,
    PLACEBO_TEMPERATURE,
    UNLEARNED,
    retrained,
    unlearned_by,
)
from e2urec.models.predictions import Predictions

ROWS = {"test": 900, "forget": 1200, "unseen": 1100, "valid": 300}
WIDTH = 3


def truth(seed=0):
    """Labels, users and taste of the rows of every set, the same for all models."""
    random = np.random.default_rng(seed)
    found = {}
    for k, (part, n) in enumerate(ROWS.items()):
        labels = random.integers(0, 2, n).astype(np.int8)
        found[part] = (
            labels,
            1000 * k + random.integers(0, 60, n),
            0.5 * (2 * labels - 1) + random.normal(size=n),
        )
    return found


def answers(rows, seed, memory):
    """A model that knows everybody's taste, remembers D_f by `memory`, and has its own noise."""
    random = np.random.default_rng(seed)
    parts = {}
    head = np.array([[0.5, 0, 0], [-0.5, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    for part, (labels, users, taste) in rows.items():
        odds = taste + 0.3 * random.normal(size=len(labels))
        if part == "forget":
            odds = odds + memory * (2 * labels - 1)
        states = np.stack([odds, *random.normal(size=(2, len(labels)))], axis=1).astype(np.float32)
        parts[part] = Predictions(states, (head, None), states[:, 0], labels, users)
    return Answers(**parts)


HALF = unlearned_by("half")
AGAIN = unlearned_by("again")


@pytest.fixture(scope="module")
def models():
    rows = truth()
    models = {
        ORIGINAL: answers(rows, 1, 0.8),
        HALF: answers(rows, 3, 0.4),
        AGAIN: answers(rows, 14, 0.0),
    }
    models[PLACEBO_TEMPERATURE] = softened(models[ORIGINAL])
    return models | {retrained(k): answers(rows, 9 + k, 0.0) for k in range(1, 5)}


@pytest.fixture(scope="module")
def twin():
    return answers(truth(), 2, 0.8)


@pytest.fixture(scope="module")
def results(models, twin):
    return evaluate(Evidence(models, seed=0, twin=twin, resamples=300))


def test_every_candidate_is_placed_between_original_and_retrained(results):
    for measure in ("auc", "loss"):
        assert results.figure("headroom", measure).low > 0
        again = results.figure("memory", measure, AGAIN)
        assert again.low < 0 < again.high
    assert results.figure("memory", "auc", PLACEBO_TEMPERATURE).value == pytest.approx(1)
    assert 0.3 < results.figure("memory", "auc", HALF).value < 0.8


def test_projection_is_free_of_seed_noise_and_has_the_value_of_its_formula(models, twin, results):
    odds = {role: model.forget.log_odds.astype(np.float64) for role, model in models.items()}
    first, second = odds[retrained(1)], odds[retrained(2)]
    direction = twin.forget.log_odds - second
    expected = ((odds[HALF] - first) @ direction) / ((odds[ORIGINAL] - first) @ direction)
    half = results.figure("projection", "projection", HALF)
    again = results.figure("projection", "projection", AGAIN)
    assert half.value == pytest.approx(expected)
    assert half.low < 0.5 < half.high
    assert again.low < 0 < again.high
    assert half.high - half.low < 0.3


def test_distances_are_means_over_the_other_retrained_models_and_the_floor_is_their_own(
    models, results
):
    numbers = range(1, 5)
    half = models[HALF].forget
    expected = [half.distances(models[retrained(k)].forget)["js"].mean() for k in numbers]
    assert results.figure("distance", "js", HALF).value == pytest.approx(np.mean(expected))
    third = results.figure("pairwise_distance", "js", HALF, retrained(3).key)
    assert third.value == pytest.approx(expected[2])
    rows = results.tables["pairwise_distance"].rows
    assert {row.group for row in rows if row.role == retrained(1)} == {
        retrained(k).key for k in (2, 3, 4)
    }
    pairs = [
        results.figure("pairwise_distance", "js", retrained(k), retrained(1).key).value
        for k in (2, 3, 4)
    ]
    assert min(pairs) < results.figure("noise_floor", "js").value
    again = results.figure("excess_distance", "js", AGAIN)
    assert again.value == pytest.approx(0, abs=0.3)
    assert results.figure("excess_distance", "js", HALF).value < 1


def test_verdict_passes_what_was_retrained_and_nothing_that_remembers(results):
    outcomes = {role: verdict.outcome for role, verdict in results.verdicts.items()}
    assert outcomes[AGAIN] == "PASS"
    assert outcomes[ORIGINAL] == "FAIL"
    assert outcomes[PLACEBO_TEMPERATURE] == "FAIL"
    assert outcomes[HALF] in ("FAIL", "RETRAIN")


def test_two_retrained_models_say_too_little_for_a_pass(models):
    few = {role: models[role] for role in (ORIGINAL, AGAIN, HALF, retrained(1), retrained(2))}
    verdicts = evaluate(Evidence(few, seed=0, resamples=300)).verdicts
    assert verdicts[AGAIN].outcome == "RETRAIN"
    assert "2 retrained models say too little" in verdicts[AGAIN].reason
    assert verdicts[ORIGINAL].outcome == "FAIL"


def test_five_forgotten_users_are_too_few_for_a_pass(models):
    """The same rows, of five users instead of sixty: every interval may still be inside."""
    few = {}
    for role, model in models.items():
        forget = replace(model.forget, users=1000 + model.forget.users % 5)
        few[role] = replace(model, forget=forget)
    verdicts = evaluate(Evidence(few, seed=0, resamples=300)).verdicts
    assert verdicts[AGAIN].outcome == "RETRAIN"
    assert "D_f has 5 users" in verdicts[AGAIN].reason
    assert verdicts[ORIGINAL].outcome == "FAIL"


def test_positive_control_is_measured_beyond_a_retrained_model():
    """D_f is easy by nature, and the original knows it no better than a model without it."""
    rows = truth()
    labels, users, taste = rows["forget"]
    easy = rows | {"forget": (labels, users, taste + 1.0 * (2 * labels - 1))}
    models = {UNLEARNED: answers(easy, 3, 0.0)}
    models |= {retrained(k): answers(easy, 20 + k, 0.0) for k in (1, 2, 3)}
    # It ranks D_f better and is less sure of it: there is headroom, and the attack, which goes by
    # how likely each label is, finds no more of D_f than in a model that never saw it.
    signs = 2 * labels - 1
    unsure = 0.6 * (models[retrained(1)].forget.log_odds + 0.5 * signs)
    known = replace(models[retrained(1)].forget, log_odds=unsure.astype(np.float32))
    models[ORIGINAL] = replace(models[retrained(1)], forget=known)
    results = evaluate(Evidence(models, seed=0, resamples=100))
    assert results.figure("membership", "auc", ORIGINAL, "loss").low > 0.5
    assert results.figure("membership", "auc_beyond", ORIGINAL, "loss").low <= 0
    assert results.figure("headroom", "auc").low > 0
    assert results.verdicts[UNLEARNED].outcome == "UNMEASURABLE"
    assert "the positive control failed" in results.verdicts[UNLEARNED].reason


def test_one_retrained_model_leaves_floor_excess_and_projection_unknown(models, twin):
    few = {role: models[role] for role in (ORIGINAL, HALF, retrained(1))}
    results = evaluate(Evidence(few, seed=0, twin=twin, resamples=20))
    assert not {"noise_floor", "excess_distance", "projection"} & set(results.tables)
    assert results.figure("memory", "auc", HALF).value > 0
    with pytest.raises(KeyError, match="no figure projection"):
        results.figure("projection", "projection", HALF)


def test_membership_table_shows_differences_where_a_retrained_model_seems_to_remember(capsys):
    rows = truth()
    labels, users, taste = rows["forget"]
    easy = rows | {"forget": (labels, users, taste + 1.0 * (2 * labels - 1))}
    models = {
        ORIGINAL: answers(easy, 1, 0.8),
        UNLEARNED: answers(easy, 3, 0.4),
        retrained(1): answers(easy, 20, 0.0),
        retrained(2): answers(easy, 21, 0.0),
    }
    results = evaluate(Evidence(models, seed=0, resamples=100))
    assert results.figure("membership", "auc", retrained(1), "loss").low > 0.5
    show_results(results, as_json=False)
    assert "less a retrained model's" in capsys.readouterr().out


def test_tables_fit_into_a_terminal_of_80_columns(results, capsys):
    show_results(results, as_json=False)
    printed = capsys.readouterr().out
    assert "Membership" in printed
    # The mark of a cell that was cut.
    assert "…" not in printed
    assert max(len(line) for line in printed.splitlines()) <= 80


def test_json_has_every_figure_under_measure_model_and_group(results):
    plain = results.as_dict()
    half = results.figure("memory", "auc", HALF)
    assert plain["memory"]["half"]["auc"] == half.as_dict()
    assert plain["headroom"]["auc"] == results.figure("headroom", "auc").as_dict()
    assert set(plain["pairwise_distance"]["retrained-1"]) == {
        "retrained-2",
        "retrained-3",
        "retrained-4",
    }
    assert plain["verdict"]["original"]["outcome"] == "FAIL"


MEASURE = """
from collections.abc import Iterator

from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.measure import Column, Headline, Measure, Row
from e2urec.metrics.bootstrap import Interval


class RowCount(Measure):
    name = "row_count"
    title = "Rows of D_f"
    columns = (Column("rows", "rows", 0),)
    headlines = (Headline("rows", "rows of D_f", 0),)

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        for role, answers in evidence.models.items():
            rows = float(len(answers.forget.labels))
            yield Row(role, {"rows": Interval(rows, rows, rows, len(answers.forget.labels))})
"""


def test_a_measure_is_one_file_found_by_being_there(models, tmp_path, monkeypatch, capsys):
    (tmp_path / "row_count.py").write_text(MEASURE)
    monkeypatch.setattr(measures, "__path__", [*measures.__path__, str(tmp_path)])
    measures.all_measures.cache_clear()
    try:
        results = evaluate(Evidence(models, seed=0, resamples=20))
    finally:
        measures.all_measures.cache_clear()
    assert results.figure("row_count", "rows", HALF).value == ROWS["forget"]
    assert results.as_dict()["row_count"]["half"]["rows"]["value"] == ROWS["forget"]
    assert results.headlines(HALF)["row_count_rows"].value == ROWS["forget"]
    show_results(results, as_json=False)
    assert "Rows of D_f" in capsys.readouterr().out
