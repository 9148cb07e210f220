"""Figures on D_f are written with three digits, and not at all for fewer than five rows."""

import json
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from test_evaluate import ROWS, answers, truth

from e2urec.cli.terminal import show_results
from e2urec.evaluation.disclosure import LEFT_OUT, outcome_record, phase_records, rounded_values
from e2urec.evaluation.evaluate import evaluate
from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.measures import all_measures
from e2urec.evaluation.results import Results
from e2urec.evaluation.roles import ORIGINAL, UNLEARNED, retrained
from e2urec.unlearning.outcome import Outcome, Target
from e2urec.unlearning.task import PhaseLog

NOT_ON_FORGET_SET = {"utility", "collateral", "retained_memory", "retained_membership"}


def evidence_of(forget_rows: int) -> Evidence:
    """An original, an unlearned and two retrained models, with so many rows of D_f."""
    rows = truth()
    models = {
        ORIGINAL: answers(rows, 1, memory=1.0),
        UNLEARNED: answers(rows, 2, memory=0.2),
        retrained(1): answers(rows, 3, memory=0.0),
        retrained(2): answers(rows, 4, memory=0.0),
    }
    for role, model in models.items():
        columns = {}
        for name in ("hidden", "log_odds", "labels", "users"):
            columns[name] = getattr(model.forget, name)[:forget_rows]
        models[role] = replace(model, forget=replace(model.forget, **columns))
    return Evidence(models, seed=0, resamples=50)


def figures_in(value: object) -> list[float]:
    """All numbers of plain JSON values that are no counts."""
    if isinstance(value, dict):
        return [number for item in value.values() for number in figures_in(item)]
    return [value] if isinstance(value, float) and np.isfinite(value) else []


def digits(number: float) -> int:
    """Significant digits of a number as it is written."""
    return len(Decimal(repr(float(number))).normalize().as_tuple().digits)


def test_written_figures_on_d_f_have_three_digits_and_all_others_have_all():
    results = evaluate(evidence_of(ROWS["forget"]))
    plain = results.as_dict()
    on_forget_set = {measure.name for measure in all_measures() if measure.on_forget_set}
    assert on_forget_set == {measure.name for measure in all_measures()} - NOT_ON_FORGET_SET
    for name in on_forget_set & set(plain):
        assert max(map(digits, figures_in(plain[name]))) <= 3, name
    for verdict in plain["verdict"].values():
        assert max(map(digits, figures_in(verdict["memory"]))) <= 3
    assert max(map(digits, figures_in(plain["utility"]))) > 10
    # What is computed further has all digits.
    exact = results.figure("memory", "auc", UNLEARNED)
    assert digits(exact.value) > 10
    assert exact.as_dict()["value"] == pytest.approx(exact.value, rel=5e-3)
    assert exact.as_dict()["n"] == ROWS["forget"]
    flat = results.flat(UNLEARNED)["memory_auc"].as_dict()
    assert max(map(digits, figures_in(flat))) <= 3


@pytest.fixture
def few() -> Results:
    return evaluate(evidence_of(4))


def test_of_fewer_than_five_rows_nothing_is_told_and_one_sentence_says_so(few, capsys):
    plain = few.as_dict()
    assert set(few.tables) <= NOT_ON_FORGET_SET
    assert "utility" in few.tables
    assert plain["left_out"] == LEFT_OUT
    for verdict in plain["verdict"].values():
        assert np.isnan(verdict["memory"]["value"])
        assert verdict["reason"] == "D_f has fewer than 5 rows"
    show_results(few, as_json=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count(LEFT_OUT) == 1
    assert "on D_f" not in printed.replace(LEFT_OUT, "")
    assert evaluate(evidence_of(5)).left_out == ""


def test_outcome_of_a_verdict_is_the_same_whether_its_figures_are_told_or_not(few):
    for role, verdict in evaluate(evidence_of(5)).verdicts.items():
        assert few.verdicts[role].outcome == verdict.outcome


def test_what_a_method_says_of_d_f_is_rounded_or_left_out():
    target = Target(before=0.712345678, lead=0.0123456, error=0.00456789, basis="scores")
    outcome = Outcome(target, alpha=1.5, scale=2.0, reached=0.70123456)
    outcome.tell("What tuning is worth is not surely positive: 0.012 AUC.")
    log = PhaseLog("joint", 0.7123456, 0.6123456, 0.6012345, 0.6543217)
    many = [outcome_record(outcome, 5), *phase_records([log], 5)]
    assert max(map(digits, figures_in({str(n): part for n, part in enumerate(many)}))) <= 3
    assert many[0]["target"]["before"] == 0.712
    hidden = json.dumps([outcome_record(outcome, 4), phase_records([log], 4)])
    assert LEFT_OUT in hidden
    for secret in ("0.7", "0.01", "not surely"):
        assert secret not in hidden
    assert outcome.target.before == 0.712345678


def test_counts_and_words_are_not_rounded():
    assert rounded_values({"n": 123456, "a": ["b", 0.00123456], "c": None, "d": float("inf")}) == {
        "n": 123456,
        "a": ["b", 0.00123],
        "c": None,
        "d": float("inf"),
    }
