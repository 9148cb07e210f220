"""The whole story on a toy model with the real MovieLens-100K files, through the command line."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from e2urec.data.samples import Samples
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.models.adapter_files import load_adapter

SMALL = [
    "--set",
    "data.rows=400",
    "--set",
    "data.held_rows=150",
    "--set",
    "data.test_rows=400",
    "--set",
    "data.history=3",
    "--set",
    "data.per_user=30",
]
# Where no figure is looked at: a command takes half as long.
SMALLER = ["--set", "data.rows=200", "--set", "data.held_rows=80", "--set", "data.test_rows=120"]
SIDES = ("original", "unlearned")
QUICK = [
    "--set",
    "relearning.steps=6",
    "--set",
    "relearning.every=3",
    "--set",
    "tuning.schedule.epochs=2",
    "--set",
    "tuning.schedule.learning_rate=0.003",
    "--set",
    "scores.pairs=0",
]


def train(call, toy: Path, out: Path, *more: str) -> None:
    status, _, error = call("train", "--model", toy, "--out", out, *SMALL, *QUICK, *more, "--json")
    assert status == 0, error


def train_samples(run: Path) -> Samples:
    """The training samples of a run, read from its data again."""
    recipe = Recipe.build(json.loads((run / "run.json").read_text())["recipe"], place="run")
    return Workspace(recipe).split.train


def users_of(run: Path) -> list[str]:
    """Some training users of a run, as its own data gives them."""
    train = train_samples(run)
    return [str(train.interactions.user_ids[int(code)]) for code in np.unique(train.users)[:3]]


def last_interaction(run: Path) -> tuple[str, str]:
    """User and item of a training row of a run that no other training prompt shows."""
    train = train_samples(run)
    data, row = train.interactions, train.rows.max()
    return str(data.user_ids[int(data.user[row])]), str(data.item_ids[int(data.item[row])])


@pytest.mark.parametrize("tuning", [[], ["--set", "tuning.lora.rank=4"]], ids=["full", "lora"])
def test_train_unlearn_retrain_and_evaluate_from_run_to_run(call, toy, tmp_path, tuning):
    train(call, toy, tmp_path / "original", *SMALLER, *tuning)
    before = (tmp_path / "original" / "run.json").read_bytes()
    users = users_of(tmp_path / "original")
    (tmp_path / "users.txt").write_text("\n".join(users))
    request = ["--request", tmp_path / "users.txt"]

    status, out, error = call("unlearn", tmp_path / "original", *request, "--dry-run", "--json")
    assert status == 0, error
    assert json.loads(out)["rows"]["forgotten_users"] == 3
    few = ["--set", "min_steps=2", "--set", "augment_min_steps=2"]
    for name, method, settings in (("unlearned", "e2urec", few), ("retrained", "retrain", [])):
        words = (
            "unlearn",
            tmp_path / "original",
            *request,
            "--method",
            method,
            *settings,
            "--out",
            tmp_path / name,
            "--json",
        )
        status, out, error = call(*words)
        assert status == 0, error
        assert not (
            set(users)
            & set(re.findall(r"[0-9a-zA-Z]+", json.dumps(json.loads(out)["run"]["method"])))
        )
    assert (tmp_path / "original" / "run.json").read_bytes() == before

    words = (
        "evaluate",
        tmp_path / "unlearned",
        *request,
        "--against",
        tmp_path / "retrained",
        "--json",
    )
    words += ("--robustness",) if find_spec("torchao") else ()
    status, out, error = call(*words)
    assert status == 0, error
    found = json.loads(out)
    shapes = (
        {"unlearned-int8", *(["unlearned-merged"] if tuning else [])}
        if find_spec("torchao")
        else set()
    )
    assert set(found["memory"]) == {"unlearned", "placebo-temperature", "placebo-retain", *shapes}
    relearned = {"unlearned", "retrained-1"} if shapes else set()
    assert set(found.get("relearning", {})) == relearned
    assert found["memory"]["placebo-temperature"]["auc"]["value"] == pytest.approx(1)
    for row in [
        *found["utility"].values(),
        *found["forget_set"].values(),
        *found["memory"].values(),
        *found["distance"].values(),
        found["headroom"],
    ]:
        assert all(set(each) == {"value", "low", "high", "n"} for each in row.values())
    assert found["verdict"]["original"]["outcome"] != "PASS"
    check_gate(call, tmp_path, request)
    check_scores_and_files(call, toy, tmp_path, tuning)
    check_one_row(call, tmp_path)


def check_one_row(call, tmp_path) -> None:
    """A figure on one row would tell what was forgotten: there is none, and it says so."""
    user, item = last_interaction(tmp_path / "original")
    (tmp_path / "row.csv").write_text(f"user,item\n{user},{item}\n")
    request = ("--request", tmp_path / "row.csv", "--method", "finetune")
    words = ("unlearn", tmp_path / "original", *request, "--out", tmp_path / "one")
    status, out, error = call(*words)
    assert status == 0, error
    assert "Figures on D_f are left out: it has fewer than 5 rows" in " ".join(out.split())
    assert "and what is left on D_f" not in " ".join(out.split())
    assert call("show", tmp_path / "one")[:2] == (0, out)


def check_gate(call, tmp_path, request) -> None:
    """Without retrained runs the verdict rests on shadows; with nothing it is refused."""
    status, out, error = call(
        "evaluate", tmp_path / "unlearned", *request, "--shadows", 2, "--gate", "--json"
    )
    found = json.loads(out)
    assert status == (0 if found["verdict"]["unlearned"]["outcome"] == "PASS" else 3)
    assert found["verdict"]["unlearned"]["basis"] == "shadows"
    assert set(found["membership"]["unlearned"]) == {"loss", "loss_user", "ratio", "ratio_user"}
    assert "2 shadow models read" in error
    assert (
        len(list((tmp_path / "unlearned" / "shadows").glob("*/*/adapter_model.safetensors"))) == 2
    )
    assert call("show", tmp_path / "unlearned")[0] == 0
    status, _, error = call("evaluate", tmp_path / "unlearned", *request, "--shadows", 0, "--gate")
    assert status == 2
    assert "--against" in error
    status, _, error = call("evaluate", tmp_path / "unlearned", "--against", tmp_path / "retrained")
    assert status == 2
    assert "another request" in error


def check_scores_and_files(call, toy, tmp_path, tuning) -> None:
    """The result scores prompts, loads with plain libraries, and nothing else is left."""
    assert call("show", tmp_path / "unlearned")[0] == 0
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "Liked: none. Disliked: none. Will the user like Heat?"}\n'
    )
    status, out, error = call(
        "score", tmp_path / "unlearned", "--examples", tmp_path / "rows.jsonl"
    )
    assert status == 0, error
    assert 0 < float(out) < 1
    if tuning:
        base = AutoModelForCausalLM.from_pretrained(toy)
        assert (
            load_adapter(base, tmp_path / "unlearned" / "adapter", "x").peft_config["x"].r
            == 4 + build("e2urec").lora.rank
        )
    else:
        AutoModelForCausalLM.from_pretrained(tmp_path / "unlearned" / "model")
    leftovers = [
        path.name
        for path in tmp_path.rglob("*")
        if "augmented" in path.name or path.name.endswith(".partial")
    ]
    assert leftovers == []


def test_interrupt_is_told_with_its_own_status_and_leaves_nothing(call, toy, tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        assert (tmp_path / "original.partial").is_dir()
        raise KeyboardInterrupt

    monkeypatch.setattr("e2urec.experiments.workspace.tune", interrupted)
    status, out, error = call("train", "--model", toy, "--out", tmp_path / "original", *SMALL)
    assert (status, out) == (130, "")
    assert error.splitlines()[-1] == "e2urec: interrupted; no half-made run was left behind"
    assert not list(tmp_path.glob("original*"))


def test_demo_prints_all_that_it_promises(call, toy, tmp_path):
    words = (
        "demo",
        "--out",
        tmp_path / "demo",
        "--set",
        f"model.name={toy}",
        "--set",
        "model.layers=none",
        # It learns enough by heart that its student has a target to be scaled to.
        "--set",
        "tuning.schedule.learning_rate=1e-2",
        "--set",
        "tuning.schedule.epochs=8",
    )
    # What it says of each model does not depend on how many rows it was tuned on.
    status, out, error = call(*words, *SMALL, "--set", "data.rows=200", "--json")
    assert status == 0, error
    # One object alone on standard output; what comes early goes to standard error.
    found = json.loads(out)
    results = found["results"]
    said = error.splitlines()
    first = next(k for k, line in enumerate(said) if line.startswith("First result after "))
    assert any(line.startswith("solving: ") for line in said[:first])
    assert not any(line.startswith(("finetune: ", "retrain: ")) for line in said[:first])
    assert any(line.startswith("retrain: ") for line in said[first:])
    for line, measure, column in (
        (said[first + 1], "forget_set", "forget_auc"),
        (said[first + 2], "utility", "auc"),
    ):
        before, after = (results[measure][name][column]["value"] for name in SIDES)
        assert line.endswith(f": {before:.3f} before, {after:.3f} after")
    placebos = ("placebo-temperature", "placebo-retain")
    for name in ("original", "retrained-1", "unlearned", *placebos):
        for measure, columns in (
            ("utility", ("auc", "gauc", "accuracy", "log_loss", "ece")),
            ("forget_set", ("forget_auc", "forget_log_loss")),
        ):
            figures = results[measure][name]
            assert all(np.isfinite(figures[column]["value"]) for column in columns)
        assert 0 <= results["retained_memory"][name]["auc"]["value"] <= 1
    for name in ("unlearned", *placebos):
        assert set(results["memory"][name]["auc"]) >= {"value", "low", "high"}
    assert results["alignment"]["unlearned"]["correlation"]["value"] <= 1
    assert results["alignment"]["ceiling"]["value"] <= 1
    distances = {f"{d}{s}" for d in ("js", "jeffreys", "l2") for s in ("", "_answers")}
    for name in ("original", "unlearned", "retrained-2"):
        assert set(results["distance"][name]) == distances
    shared = {"loading", "original", "retrained", "unlearning", "evaluation", "placebo"}
    assert set(found["seconds"]) >= shared
    phases = {"solving", "teachers", "scaling", "logging"}
    assert set(found["phases"]) == phases
    parts = sum(value for phase, value in found["phases"].items() if phase != "logging")
    assert found["seconds"]["unlearning"] == pytest.approx(parts)
    assert sum(found["seconds_by_part"].values()) == pytest.approx(found["seconds"]["total"])
    assert min(found["seconds_by_part"].values()) >= 0
    assert 0 < found["trainable_parameters"] < found["total_parameters"]
    assert found["seed"] == 0
    assert found["rows"]["forget"] > 0

    assert call("show", tmp_path / "demo")[0] == 0
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("<svg") == 4
    assert not re.findall(r"""(?:src|href)=["']http|url\(http|@import""", page)
    weights = sorted(
        path.relative_to(tmp_path / "demo").as_posix() for path in tmp_path.rglob("*.safetensors")
    )
    assert weights == ["original/model/model.safetensors", "unlearned/model/model.safetensors"]
    original, unlearned = (load_file(tmp_path / "demo" / name) for name in weights)
    assert set(original) == set(unlearned)


@pytest.mark.parametrize(
    ("wanted", "minutes", "plots"), [(0, "none", 2), (1, "none", 3), (2, "0.0001", 3)]
)
def test_demo_shows_what_it_has_when_it_retrains_less_often(
    call, toy, tmp_path, wanted, minutes, plots
):
    words = (
        "demo",
        "--out",
        tmp_path / "demo",
        "--set",
        f"model.name={toy}",
        "--set",
        "model.layers=none",
    )
    fewer = (
        "--set",
        f"retrained={wanted}",
        "--set",
        f"minutes={minutes}",
        "--set",
        "request.unit=interactions",
        "--set",
        "tuning.schedule.epochs=1",
    )
    status, out, error = call(*words, *SMALL, *SMALLER, *fewer, "--json")
    assert status == 0, error
    rows = json.loads(out)["rows"]
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("<svg") == plots
    assert f"{rows['removed']} rows of {rows['removed_users']} users were forgotten" in page
    assert ("no time for 1 more retraining" in page) is (wanted == 2)


def test_same_seed_trains_the_same_model_byte_for_byte(call, toy, tmp_path):
    for name in ("a", "b"):
        train(call, toy, tmp_path / name, *SMALLER)
    files = [json.loads((tmp_path / name / "run.json").read_text())["files"] for name in ("a", "b")]
    assert files[0]["model/model.safetensors"] == files[1]["model/model.safetensors"]


BAD = [
    (["train", "--data", "movielens-10k"], "did you mean 'movielens-100k'"),
    (["train", "--model", "no-such-model"], "model 'no-such-model': cannot be loaded"),
    (["train", "--set", "data.template=compct"], "did you mean 'compact'"),
    (["train", "--set", "data.hstory=3"], "did you mean 'history'"),
    (["train", "--recipe", "none.toml"], "cannot be read"),
    (["unlearn", "{run}", "--method", "e2ured"], "did you mean 'e2urec'"),
    (["unlearn", "{run}", "--set", "alhpa=2"], "did you mean 'alpha'"),
    (["unlearn", "{run}", "--set", "beta=2"], "beta=2"),
    (["unlearn", "{run}", "--preset", "papr"], "did you mean 'paper'"),
    (
        ["unlearn", "{run}", "--request", "{dir}/unknown.txt"],
        "1 of 1 users are not in the recommender's data",
    ),
    (
        ["unlearn", "{run}", "--request", "{dir}/unknown.txt", "--seed", "3"],
        "--seed: draw a request",
    ),
    (["unlearn", "{run}", "--request", "{dir}/empty.txt"], "names nobody"),
    (["unlearn", "{run}", "--request", "{dir}/none.txt"], "cannot be read"),
    (["unlearn", "{run}", "--forget-ratio", "1.5"], "request.ratio = 1.5"),
    (["unlearn", "{dir}"], "no run folder"),
    (["unlearn", "{dir}/none"], "is no folder"),
    (["evaluate", "{run}"], "is no unlearned run"),
]


def test_bad_input_is_one_line_with_status_2_and_nothing_written(call, toy, tmp_path):
    run = tmp_path / "original"
    train(call, toy, run, *SMALLER)
    (tmp_path / "unknown.txt").write_text("nobody-of-that-name\n")
    (tmp_path / "empty.txt").write_text("\n")
    there = sorted(path.name for path in tmp_path.iterdir())
    for words, message in BAD:
        filled = [word.format(run=run, dir=tmp_path) for word in words]
        more = [] if words[0] == "evaluate" else ["--out", tmp_path / "out"]
        if words[0] == "train" and "--model" not in words:
            more += ["--model", toy]
        status, out, error = call(*filled, *more)
        assert (status, out) == (2, ""), (words, error)
        assert message in error, (words, error)
        assert error.count("\n") == 1, (words, error)
        assert "nobody-of-that-name" not in error
        assert sorted(path.name for path in tmp_path.iterdir()) == there, words
    status, _, error = call("train", "--model", toy, "--out", run)
    assert status == 2
    assert "exists already" in error
