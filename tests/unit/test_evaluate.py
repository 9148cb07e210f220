"""The evaluation on made-up answers of which the truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from e2urec.cli.terminal import show_results
from e2urec.core.arrays import Head
from e2urec.core.errors import RunError
from e2urec.data.difficulty import Difficulty
from e2urec.evaluation import measures
from e2urec.evaluation.answer_store import AnswerStore
from e2urec.evaluation.answers import Answers, softened
from e2urec.evaluation.evaluate import evaluate
from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.roles import (
    ORIGINAL,
    OURS,
    PLACEBO_TEMPERATURE,
    UNLEARNED,
    retrained,
    unlearned_by,
)
from e2urec.metrics.classification import auc, row_losses
from e2urec.models.predictions import Predictions

ROWS = {"test": 900, "forget": 1200, "unseen": 1100, "valid": 300, "retain": 1000}
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


def answers(rows, seed, memory, retained=0.8):
    """A model that knows everybody's taste, remembers D_f and D_r, and has its own noise."""
    random = np.random.default_rng(seed)
    parts = {}
    head = np.array([[0.5, 0, 0], [-0.5, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    for part, (labels, users, taste) in rows.items():
        odds = taste + 0.3 * random.normal(size=len(labels))
        if part == "forget":
            odds = odds + memory * (2 * labels - 1)
        if part == "retain":
            odds = odds + retained * (2 * labels - 1)
        states = np.stack([odds, *random.normal(size=(2, len(labels)))], axis=1).astype(np.float32)
        parts[part] = Predictions(states, Head(head, None), states[:, 0], labels, users)
    return Answers(**parts)


def control(rows):
    """A control model that knows everybody's taste, and remembers nobody."""
    tastes = {part: taste for part, (_, _, taste) in rows.items()}
    return Difficulty(tastes["retain"], {"unseen": tastes["unseen"]})


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
    difficulty = control(truth())
    return evaluate(Evidence(models, seed=0, twin=twin, difficulty=difficulty, resamples=300))


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


def test_alignment_is_the_mean_correlation_with_what_retraining_changes(models, results):
    odds = {role: model.forget.log_odds.astype(np.float64) for role, model in models.items()}
    moved = {role: values - odds[ORIGINAL] for role, values in odds.items()}
    references = [retrained(k) for k in range(1, 5)]
    half = np.mean([np.corrcoef(moved[HALF], moved[other])[0, 1] for other in references])
    table = np.corrcoef([moved[role] for role in references])
    ceiling = table[np.triu_indices(4, k=1)].mean()
    assert results.figure("alignment", "correlation", HALF).value == pytest.approx(half)
    assert results.figure("alignment", "ceiling").value == pytest.approx(ceiling)
    share = results.figure("alignment", "ratio", HALF)
    assert share.value == pytest.approx(half / ceiling)
    assert share.low < share.value < share.high
    assert results.headlines(HALF)["alignment_ratio"] == share
    assert f"{ceiling:.2f}" in results.tables["alignment"].note


def test_alignment_of_a_model_retrained_once_more_is_at_its_ceiling_and_of_softening_below(results):
    again = results.figure("alignment", "ratio", AGAIN)
    assert again.low < 1 < again.high
    assert results.figure("alignment", "ratio", PLACEBO_TEMPERATURE).high < again.low


@pytest.mark.filterwarnings("error")
def test_a_model_that_did_not_move_has_no_direction(models, capsys):
    still = {**models, UNLEARNED: models[ORIGINAL]}
    results = evaluate(Evidence(still, seed=0, resamples=20))
    assert results.find("alignment", "correlation", UNLEARNED) is None
    assert results.find("alignment", "ratio", UNLEARNED) is None
    assert results.figure("alignment", "ratio", HALF).value > 0
    assert "did not move" in results.tables["alignment"].note
    show_results(results, as_json=False)
    assert "nan" not in capsys.readouterr().out


def test_alignment_has_no_share_where_retrained_models_may_agree_by_chance(models):
    random = np.random.default_rng(0)
    aimless = {}
    for role, model in models.items():
        shift = random.normal(size=ROWS["forget"]).astype(np.float32)
        moved = models[ORIGINAL].forget.log_odds + (0 if role == ORIGINAL else shift)
        aimless[role] = replace(model, forget=replace(model.forget, log_odds=moved))
    results = evaluate(Evidence(aimless, seed=0, resamples=100))
    assert results.figure("alignment", "ceiling").low < 0
    assert results.find("alignment", "ratio", HALF) is None
    assert results.find("alignment", "correlation", HALF) is not None
    assert "may be 0" in results.tables["alignment"].note


def test_retained_memory_is_held_against_what_the_control_model_makes_of_unseen_users():
    rows = truth()
    labels, users, taste = rows["retain"]
    # Half of the taste is taken off: D_r is harder than the unseen users for everybody.
    rows["retain"] = (labels, users, taste - 0.5 * (2 * labels - 1))
    models = {
        ORIGINAL: answers(rows, 1, 0.8, retained=0.8),
        HALF: answers(rows, 3, 0.4, retained=0.4),
        AGAIN: answers(rows, 14, 0.0, retained=0.0),
    }
    models[PLACEBO_TEMPERATURE] = softened(models[ORIGINAL])
    difficulty = control(rows)
    results = evaluate(Evidence(models, seed=0, difficulty=difficulty, resamples=300))
    unseen = models[ORIGINAL].unseen
    harder = auc(labels, difficulty.retain) - auc(unseen.labels, difficulty.outsiders["unseen"])
    never = auc(unseen.labels, unseen.log_odds) + harder
    before = auc(labels, models[ORIGINAL].retain.log_odds)
    half = auc(labels, models[HALF].retain.log_odds)
    assert results.figure("retained_memory", "never").value == pytest.approx(never)
    assert results.figure("retained_memory", "auc", HALF).value == pytest.approx(half)
    share = results.figure("retained_memory", "share", HALF)
    assert share.value == pytest.approx((half - never) / (before - never))
    nothing = results.figure("retained_memory", "share", AGAIN)
    assert nothing.value == pytest.approx(0, abs=0.05)
    assert nothing.high < share.low
    # Uncorrected, the model that knows nobody would seem to have lost far more than there was.
    assert harder < -0.5 * (before - never)
    assert results.find("retained_memory", "share", ORIGINAL) is None
    assert results.figure("retained_memory", "share", PLACEBO_TEMPERATURE).value == 1


def test_rivals_are_held_against_e2urec_on_the_same_resamples(models):
    difficulty = control(truth())
    # Far beyond retraining, so that the rival is nearer although it has kept more.
    beyond = {**models, OURS: answers(truth(), 21, -0.4)}
    ours = {**models, OURS: models[AGAIN]}
    results = evaluate(Evidence(ours, seed=0, difficulty=difficulty, resamples=300))
    distance = results.figure("paired_difference", "memory_distance", HALF)
    half = results.figure("memory", "auc", HALF).value
    again = results.figure("memory", "auc", AGAIN).value
    assert distance.value == pytest.approx(abs(half) - abs(again))
    assert distance.low > 0
    # The same answers differ in nothing, whatever users are drawn.
    for column in ("memory_distance", "test_auc", "retained_memory"):
        same = results.figure("paired_difference", column, AGAIN)
        assert (same.value, same.low, same.high) == (0, 0, 0)
    share = results.figure("paired_difference", "retained_memory", HALF).value
    expected = results.figure("retained_memory", "share", HALF).value
    expected -= results.figure("retained_memory", "share", AGAIN).value
    assert share == pytest.approx(expected, abs=1e-3)
    assert results.find("paired_difference", "test_auc", OURS) is None
    results = evaluate(Evidence(beyond, seed=0, resamples=300))
    over = results.figure("memory", "auc", OURS).value
    distance = results.figure("paired_difference", "memory_distance", HALF)
    assert over < 0
    assert distance.value == pytest.approx(half + over)
    assert distance.high < 0
    assert "paired_difference" not in evaluate(Evidence(models, seed=0, resamples=20)).tables


def test_test_auc_is_held_against_the_other_retrained_models(models, results):
    aucs = {role: auc(model.test.labels, model.test.log_odds) for role, model in models.items()}
    others = [aucs[retrained(number)] for number in (2, 3, 4)]
    found = results.figure("utility", "auc_to_retrained", retrained(1))
    assert found.value == pytest.approx(aucs[retrained(1)] - np.mean(others))
    assert found.low < found.value < found.high


def test_memory_within_single_users_does_not_see_that_one_model_says_yes_more_often(models):
    single = models[HALF]
    # A model of her own for each user: each says Yes more or less often, as a whole.
    shift = 5 * np.random.default_rng(5).normal(size=3000)[single.forget.users]
    odds = single.forget.log_odds + shift
    shifted = replace(single, forget=replace(single.forget, log_odds=odds))
    evidence = Evidence({**models, AGAIN: shifted}, seed=0, resamples=100, is_of_singles=True)
    results = evaluate(evidence)
    within = [results.figure("memory", "within", role).value for role in (HALF, AGAIN)]
    assert within[0] == within[1]
    assert 0.3 < within[0] < 0.8
    assert results.figure("memory", "auc", AGAIN).value < 0


def test_retained_memory_has_no_share_where_the_original_remembers_nobody():
    rows = truth()
    # Even a little less than nobody knows of the unseen users.
    models = {ORIGINAL: answers(rows, 1, 0.8, retained=-0.1), HALF: answers(rows, 3, 0.4)}
    results = evaluate(Evidence(models, seed=0, difficulty=control(rows), resamples=100))
    assert results.figure("retained_memory", "auc", HALF).value > 0.7
    assert results.find("retained_memory", "share", HALF) is None
    assert "no share" in results.tables["retained_memory"].note


def test_retained_memory_is_left_out_where_a_model_has_no_answers_to_it(models):
    few = {ORIGINAL: models[ORIGINAL], HALF: replace(models[HALF], retain=None)}
    results = evaluate(Evidence(few, seed=0, difficulty=control(truth()), resamples=20))
    assert "retained_memory" not in results.tables
    assert "retained_memory" not in evaluate(Evidence(models, seed=0, resamples=20)).tables


def test_rewritten_rows_are_told_by_their_old_prompts_where_there_are_any(models):
    assert "rewritten" not in evaluate(Evidence(models, seed=0, resamples=20)).tables
    rows = {}
    for role, moved in ((ORIGINAL, 0.0), (HALF, 0.25), (AGAIN, -0.5)):
        answer = models[role]
        odds = models[ORIGINAL].retain.log_odds + moved
        rows[role] = replace(answer, rewritten=replace(answer.retain, log_odds=odds))
    results = evaluate(Evidence(rows, seed=0, resamples=20))
    expected = auc(rows[ORIGINAL].retain.labels, models[ORIGINAL].retain.log_odds)
    for role, moved in ((ORIGINAL, 0.0), (HALF, 0.25), (AGAIN, 0.5)):
        assert results.figure("rewritten", "moved", role).value == pytest.approx(moved, abs=1e-5)
        assert results.figure("rewritten", "auc", role).value == pytest.approx(expected)


def test_answers_to_retained_rows_come_back_from_the_disk(models, tmp_path):
    store = AnswerStore(tmp_path, bytes(range(32)))
    for name, model in {
        "with": models[HALF],
        "without": replace(models[HALF], retain=None),
    }.items():
        store.save(tmp_path / name, model)
        found = store.load(tmp_path / name)
        assert set(found.parts()) == set(model.parts())
    again = store.load(tmp_path / "with").retain
    assert (again.log_odds == models[HALF].retain.log_odds).all()
    assert (again.users == models[HALF].retain.users).all()


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
    assert results.figure("alignment", "correlation", HALF).value > 0
    assert results.find("alignment", "ratio", HALF) is None
    assert "two retrained" in results.tables["alignment"].note
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
    assert "retained" in printed
    # Of no single model: they stand in the notes.
    assert "all rows" not in printed.split("Direction of the change")[1].split("Distance")[0]
    # The mark of a cell that was cut.
    assert "…" not in printed
    assert max(len(line) for line in printed.splitlines()) <= 80


def test_json_has_every_figure_under_measure_model_and_group(results):
    plain = results.as_dict()
    half = results.figure("memory", "auc", HALF)
    assert plain["memory"]["half"]["auc"] == half.as_dict()
    assert plain["headroom"]["auc"] == results.figure("headroom", "auc").as_dict()
    assert plain["alignment"]["ceiling"] == results.figure("alignment", "ceiling").as_dict()
    assert plain["retained_memory"]["never"]["n"] == ROWS["retain"]
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


def test_what_models_say_of_d_f_cannot_be_read_without_the_key(models, tmp_path):
    key = bytes(range(32))
    retain = models[HALF].retain
    model = replace(models[HALF], rewritten=replace(retain, log_odds=retain.log_odds / 3))
    AnswerStore(tmp_path, key).save(tmp_path / "answers", model)
    content = (tmp_path / "answers").read_bytes()
    assert model.rewritten.log_odds.tobytes() not in content
    for column in ("log_odds", "labels", "users", "hidden"):
        assert getattr(model.forget, column).tobytes() not in content
    # Of test rows nobody asked to be forgotten, but who is missing among them was.
    assert model.test.log_odds.tobytes() in content
    for part in (model.test, model.unseen, retain):
        assert part.users.tobytes() not in content
    again = AnswerStore(tmp_path, key).load(tmp_path / "answers")
    assert (again.forget.hidden == model.forget.hidden).all()
    assert (again.forget.users == model.forget.users).all()
    with pytest.raises(RunError, match="kept under another key, or are damaged") as told:
        AnswerStore(tmp_path, bytes(32)).load(tmp_path / "answers")
    assert "\n" not in str(told.value)


# --- those who stay, and the one who is forgotten least


def test_attack_on_those_who_stay_finds_what_a_model_remembers_of_them(models, results):
    rows = truth()
    louder = unlearned_by("louder")
    more = evaluate(
        Evidence(
            {**models, louder: answers(rows, 5, 0.0, retained=1.6)},
            seed=0,
            difficulty=control(rows),
            resamples=300,
        )
    )
    for name in ("loss", "loss_user"):
        before = more.figure("retained_membership", "auc", ORIGINAL, name)
        after = more.figure("retained_membership", "auc", louder, name)
        change = more.figure("retained_membership", "change", louder, name)
        assert before.low > 0.5
        assert change.value == pytest.approx(after.value - before.value)
        assert change.low > 0
    # One that remembers those who stay as the original does has not changed.
    same = results.figure("retained_membership", "change", HALF, "loss")
    assert same.low < 0 < same.high
    # AUC over rows: members' log-likelihoods against those of the unseen users.
    original = models[ORIGINAL]
    parts = [original.retain, original.unseen]
    likelihood = np.concatenate([-row_losses(part.labels, part.log_odds) for part in parts])
    member = np.repeat([1, 0], [len(part.labels) for part in parts])
    expected = auc(member, likelihood)
    value = results.figure("retained_membership", "auc", ORIGINAL, "loss").value
    assert value == pytest.approx(expected)


def test_worst_user_is_the_one_of_whom_more_is_known_than_after_retraining(models):
    half = models[HALF].forget
    target = half.users[0]
    sign = 2.0 * half.labels - 1
    odds = np.where(half.users == target, half.log_odds + 3 * sign, half.log_odds)
    tampered = replace(models[HALF], forget=replace(half, log_odds=odds))
    found = evaluate(Evidence({**models, HALF: tampered}, seed=0, resamples=100))
    references = [models[retrained(number)].forget for number in range(1, 5)]
    losses = np.mean([row_losses(half.labels, rows.log_odds) for rows in references], axis=0)
    gaps = losses - row_losses(half.labels, odds)
    by_user = {user: gaps[half.users == user].mean() for user in np.unique(half.users)}
    assert max(by_user, key=by_user.__getitem__) == target
    assert found.figure("worst_user", "worst", HALF).value == pytest.approx(by_user[target])
    mean = np.mean(list(by_user.values()))
    assert found.figure("worst_user", "mean", HALF).value == pytest.approx(mean)
    assert found.figure("worst_user", "users", HALF).value == len(by_user)


def test_worst_user_of_few_rows_is_left_out(models):
    # Everybody but one user has a single row.
    count = len(models[HALF].forget.labels)
    users = np.where(np.arange(count) < 5, 0, np.arange(count))
    few = {}
    for role, model in models.items():
        few[role] = replace(model, forget=replace(model.forget, users=users))
    found = evaluate(Evidence(few, seed=0, resamples=100))
    assert found.figure("worst_user", "users", HALF).value == 1
    worst = found.figure("worst_user", "worst", HALF).value
    assert worst == found.figure("worst_user", "mean", HALF).value


def test_retrained_model_is_held_against_the_others_and_has_nobody_who_is_known(results):
    again = results.figure("worst_user", "mean", AGAIN).value
    retrained_mean = results.figure("worst_user", "mean", retrained(1)).value
    original = results.figure("worst_user", "mean", ORIGINAL).value
    assert abs(again) < 0.1 * original
    assert abs(retrained_mean) < 0.1 * original
    assert results.figure("worst_user", "worst", ORIGINAL).value > original
