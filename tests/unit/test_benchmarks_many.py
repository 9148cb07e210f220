"""Benchmarks of many models: what they report of arrays, and that they go on where they were."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from e2urec.core.errors import ConfigError
from e2urec.metrics.bootstrap import user_bootstrap
from e2urec.testing import toy_tables
from toy_data import quick_settings, write_ratings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import kept_models
import many_figures
import many_models
import two_users
from kept_models import FLOOR, ORIGINAL, RETRAINED, ROWS, KeptModels
from many_figures import attack_figures, step_key
from pooled_plan import parse_variant
from two_users import PairScores

WEAK = ["--variant", "weak=finetune:steps=1"]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(many_figures, "RESAMPLES", 100)


@pytest.fixture
def words(toy, tmp_path):
    """The options that every command has."""
    settings = quick_settings(write_ratings(tmp_path), toy)
    words = ["--work", str(tmp_path / "work"), "--base", str(toy)]
    for setting in settings:
        words += ["--set", setting]
    return words


def printed_report(command, words, capsys):
    command.main(words)
    return json.loads(capsys.readouterr().out)


def steps_in(folder):
    """When each step was done."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.rglob("record.json")}


def has_ids(report):
    ratings, _ = toy_tables(users=24)
    text = json.dumps(report)
    return any(f'"{user}"' in text for user in ratings["user"].unique().to_list())


def test_many_models_go_on_with_those_that_are_there(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        many_models.main([*words, *WEAK, "--models", "1"])
    assert stop.value.code == 2
    assert "1 models of each kind are finished, and figures take 3" in capsys.readouterr().err
    work = tmp_path / "work"
    before = steps_in(work)
    report = printed_report(many_models, [*words, *WEAK, "--models", "3"], capsys)
    after = steps_in(work)
    assert {name: after[name] for name in before} == before
    kinds = (RETRAINED, FLOOR, ORIGINAL, "weak")
    steps = [step_key(kind, number) for kind in kinds for number in (1, 2, 3)]
    assert set(after) == {*steps, ROWS}
    assert report["models"] == 3
    assert set(report["kinds"]) == {FLOOR, ORIGINAL, "weak"}
    assert report["kinds"]["weak"]["method"] == "finetune"
    attacks = {"ulira", "ulira_pooled", "quality", "quality_pooled"}
    assert set(report["kinds"]["weak"]["retain"]) == {"klom", *attacks}
    assert set(report["kinds"]["weak"]["test"]) == {"klom"}
    assert not has_ids(report)
    again = printed_report(many_models, [*words, "--models", "9", "--report-only"], capsys)
    assert again == report | {"planned": 9}
    # All have seeds of their own, those that forgot too.
    odds = {kept_models.answers_in(work, step)["test"].tobytes() for step in steps}
    assert len(odds) == len(steps)


def test_another_request_is_refused_in_the_same_folder(toy, tmp_path):
    KeptModels.open(tmp_path, [], "many models", str(toy))
    with pytest.raises(ConfigError, match=r"was begun with request\.seed=42, not 9"):
        KeptModels.open(tmp_path, ["request.seed=9"], "many models", str(toy))


def test_a_variant_goes_on_with_its_own_settings_alone(toy, tmp_path):
    models = KeptModels.open(tmp_path, [], "many models", str(toy))
    models.begin(parse_variant("weak=finetune:steps=1"))
    models.begin(parse_variant("weak=finetune:steps=1"))
    with pytest.raises(ConfigError, match="variant 'weak': was begun with other settings"):
        models.begin(parse_variant("weak=finetune:steps=2"))


def test_no_variant_has_the_name_of_what_it_is_held_against(words, capsys):
    with pytest.raises(SystemExit):
        many_models.main([*words, "--variant", "floor=finetune:steps=1"])
    assert "variant 'floor': is the name of models" in capsys.readouterr().err


def test_variants_learn_from_the_scores_of_the_original_that_they_forget_from(toy, words):
    settings = [word for word in words if "=" in word]
    models = KeptModels.open(Path(words[1]), [*settings, "scores.pairs=1"], "many", str(toy))
    parts = models.space.resolve(models.space.request())
    rows = models.space.rows(parts)
    first = models.scored_rows(rows, parts, step_key(ORIGINAL, 1), 1)
    second = models.scored_rows(rows, parts, step_key(ORIGINAL, 2), 2)
    assert rows.scores is None
    assert first.scores.forget.present.all()
    # Half models of another seed, on the same rows; made once.
    assert not np.array_equal(first.scores.forget.mean, second.scores.forget.mean)
    before = steps_in(Path(words[1]))
    again = models.scored_rows(rows, parts, step_key(ORIGINAL, 1), 1)
    assert np.array_equal(again.scores.forget.mean, first.scores.forget.mean)
    assert steps_in(Path(words[1])) == before


def test_figures_tell_models_apart_that_are_and_none_that_are_not():
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(30), 4)
    retrained, floor, far = (random.normal(shift, 1.0, (12, 120)) for shift in (0, 0, 6))
    same = attack_figures(floor, retrained, users, seed=0)
    other = attack_figures(far, retrained, users, seed=0)
    for name in ("ulira", "ulira_pooled"):
        assert same[name]["accuracy"]["low"] < 0.5 < same[name]["accuracy"]["high"]
        assert same[name]["auc"]["value"] == pytest.approx(0.5, abs=0.06)
        assert other[name]["accuracy"]["low"] > 0.95
        assert other[name]["tpr"]["value"] > 0.9
    assert same["quality"]["quality"]["value"] > 10 * other["quality"]["quality"]["value"]
    assert same["quality"]["epsilon"]["median"] < other["quality"]["epsilon"]["median"]


def test_intervals_are_over_users_and_not_over_rows():
    random = np.random.default_rng(0)
    models = [np.repeat(random.normal(0, 1, (6, 10)), 8, axis=1) for _ in range(2)]
    users = np.repeat(np.arange(10), 8)
    width = {}
    for name, groups in (("users", users), ("rows", np.arange(80))):
        accuracy = attack_figures(*models, groups, seed=0)["ulira"]["accuracy"]
        width[name] = accuracy["high"] - accuracy["low"]
    assert width["users"] > 2 * width["rows"]


# --- two users


def test_rows_towards_retraining_are_counted_in_both_readings():
    scores = PairScores(
        original=np.array([0.5, 0.5, 0.5, 0.5]),
        retrained=np.array([0.6, 0.6, 0.4, 0.5]),
        # Nearer; beyond it and farther than before; away; at the goal from the start.
        model=np.array([0.55, 0.9, 0.6, 0.5]),
        users=np.array([0, 0, 1, 1]),
    )
    figures = scores.figures()
    assert figures == {"rows": 4, "residual": pytest.approx(0.55 / 0.3), "towards": 2, "closer": 1}
    intervals = scores.intervals(seed=0)
    assert intervals["towards"]["value"] == 0.5
    assert intervals["residual"]["value"] == pytest.approx(0.55 / 0.3)
    # One draw in four is the first user twice, whose rows both moved in the right direction.
    assert intervals["towards"]["high"] == 1.0


def test_nothing_done_has_a_residual_of_1_and_no_row_nearer():
    before = np.array([0.2, 0.7])
    scores = PairScores(before, np.array([0.4, 0.1]), before, np.array([0, 1]))
    assert scores.figures() == {"rows": 2, "residual": 1.0, "towards": 0, "closer": 0}


def test_pairs_are_disjoint_and_their_report_names_nobody(words, tmp_path, capsys):
    report = printed_report(two_users, [*words, *WEAK, "--pairs", "2"], capsys)
    users = []
    for number in (1, 2):
        rows = kept_models.answers_in(tmp_path / "work" / f"pair-{number}", "rows")
        users += np.unique(rows["users"]).tolist()
    assert len(set(users)) == 4
    assert set(report["kinds"]) == {FLOOR, "weak"}
    pairs = report["kinds"]["weak"]["pairs"]
    assert (
        sum(pair["rows"] for pair in pairs) == report["kinds"]["weak"]["together"]["residual"]["n"]
    )
    assert not has_ids(report)
    before = steps_in(tmp_path / "work")
    assert printed_report(two_users, [*words, *WEAK, "--pairs", "2"], capsys) == report
    assert steps_in(tmp_path / "work") == before


def test_an_empty_folder_has_no_report(tmp_path, capsys):
    for command in (many_models, two_users):
        with pytest.raises(SystemExit) as stop:
            command.main(["--work", str(tmp_path), "--report-only"])
        assert stop.value.code == 2
        assert "finished" in capsys.readouterr().err


def test_more_pairs_than_users_are_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        two_users.main([*words, *WEAK, "--pairs", "50"])
    assert stop.value.code == 2
    assert "--pairs 50" in capsys.readouterr().err


def test_draws_of_users_are_the_same_for_rows_and_for_the_margins_of_all_models():
    users = np.array([3, 3, 5, 9])
    rows = user_bootstrap(users, resamples=20, seed=4)
    margins = user_bootstrap(np.tile(users, 6), resamples=20, seed=4)
    assert np.array_equal(rows.counts, margins.counts)
