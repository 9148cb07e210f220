"""One evaluation on made answers of which the truth is known: originals that remember, models that do not."""

import numpy as np
import pytest

from e2urec.cli.terminal import show_results
from e2urec.evaluation.evaluate import evaluate, softened
from e2urec.metrics.bootstrap import user_bootstrap
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
    random, told = np.random.default_rng(seed), {}
    head = np.array([[0.5, 0, 0], [-0.5, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    for part, (labels, users, taste) in rows.items():
        odds = taste + 0.3 * random.normal(size=len(labels))
        if part == "forget":
            odds = odds + memory * (2 * labels - 1)
        states = np.stack([odds, *random.normal(size=(2, len(labels)))], axis=1).astype(np.float32)
        told[part] = Predictions(states, (head, None), states[:, 0], labels, users)
    return told


@pytest.fixture(scope="module")
def models():
    rows = truth()
    made = {
        "original": answers(rows, 1, 0.8),
        "twin": answers(rows, 2, 0.8),
        "half": answers(rows, 3, 0.4),
    }
    return made | {f"r{k}": answers(rows, 10 + k, 0.0) for k in range(5)}


@pytest.fixture(scope="module")
def found(models):
    candidates = {
        "half": models["half"],
        "again": models["r4"],
        "placebo": softened(models["original"]),
    }
    retrained = [models[f"r{k}"] for k in range(4)]
    return evaluate(
        models["original"], retrained, candidates, seed=0, twin=models["twin"], resamples=300
    )


def test_every_candidate_is_placed_between_original_and_retrained(found):
    for measure in ("auc", "loss"):
        assert found.headroom[measure].low > 0
        assert found.memory["again"][measure].low < 0 < found.memory["again"][measure].high
    assert found.memory["placebo"]["auc"].value == pytest.approx(1)
    assert 0.3 < found.memory["half"]["auc"].value < 0.8


def test_projection_is_free_of_seed_noise_and_has_the_value_of_the_plain_metric(models, found):
    odds = {name: rows["forget"].odds for name, rows in models.items()}
    arguments = (odds["half"], odds["r0"], odds["twin"], odds["r1"], odds["original"])
    boot = user_bootstrap(np.zeros(len(odds["half"]), int), resamples=1, seed=0)
    assert found.projection["half"].value == pytest.approx(boot.projection(*arguments)[0])
    assert found.projection["half"].low < 0.5 < found.projection["half"].high
    assert found.projection["again"].low < 0 < found.projection["again"].high
    assert found.projection["half"].high - found.projection["half"].low < 0.3


def test_distances_are_means_over_the_other_retrained_models_and_the_floor_is_their_own(
    models, found
):
    expected = [
        models["half"]["forget"].distances(models[f"r{k}"]["forget"])["js"].mean() for k in range(4)
    ]
    assert found.distance["half"]["js"].value == pytest.approx(np.mean(expected))
    assert found.apart["half"]["retrained_3"]["js"].value == pytest.approx(expected[2])
    assert set(found.apart["retrained"]) == {"retrained_2", "retrained_3", "retrained_4"}
    floor = [found.apart[f"retrained_{k}"]["retrained"]["js"].value for k in (2, 3, 4)]
    assert min(floor) < found.floor["js"].value
    assert found.excess["again"]["js"].value == pytest.approx(0, abs=0.3)
    assert found.excess["half"]["js"].value < 1


def test_verdict_passes_what_was_retrained_and_nothing_that_remembers(found):
    assert found.verdict["again"].outcome == "PASS"
    assert found.verdict["original"].outcome == "FAIL"
    assert found.verdict["placebo"].outcome == "FAIL"
    assert found.verdict["half"].outcome in ("FAIL", "RETRAIN")


def test_one_retrained_model_leaves_floor_excess_and_projection_unknown(models):
    half = {"half": models["half"]}
    found = evaluate(
        models["original"], [models["r0"]], half, seed=0, twin=models["twin"], resamples=20
    )
    assert (found.floor, found.excess, found.projection) == ({}, {}, {})
    assert found.memory["half"]["auc"].value > 0


def test_membership_table_shows_differences_where_a_retrained_model_seems_to_remember(
    models, capsys
):
    rows = truth()
    labels, users, taste = rows["forget"]
    easy = rows | {"forget": (labels, users, taste + 1.0 * (2 * labels - 1))}
    retrained = [answers(easy, 20 + k, 0.0) for k in range(2)]
    found = evaluate(
        answers(easy, 1, 0.8),
        retrained,
        {"unlearned": answers(easy, 3, 0.4)},
        seed=0,
        resamples=100,
    )
    assert found.membership["retrained"]["loss"]["auc"].low > 0.5
    show_results(found, as_json=False)
    told = capsys.readouterr().out
    assert "less a retrained model's" in told
