"""Requests are pooled as the protocol says, and a run that was interrupted ends as any other."""

import importlib.util
import json
import sys
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from e2urec.core.errors import ConfigError, DataError
from e2urec.core.say import no_words
from e2urec.data.difficulty import Difficulty
from e2urec.evaluation.answer_store import NO_HEAD
from e2urec.evaluation.answers import Answers
from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.judgement import verdicts
from e2urec.evaluation.measures.alignment import Alignment
from e2urec.evaluation.measures.memory import Memory
from e2urec.evaluation.measures.retained_memory import RetainedMemory
from e2urec.evaluation.roles import ORIGINAL, UNLEARNED, retrained
from e2urec.experiments.grid import Grid
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.models.predictions import Predictions
from e2urec.runs.files import write_json
from e2urec.testing import toy_interactions
from e2urec.training.out_of_fold import OutOfFold
from e2urec.unlearning.method import Method

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import pooled_files
import report_parts
import requests_aims
import requests_report
from common import measure_only
from pooled_answers import PooledAnswers
from pooled_figures import Scope, SizeFigures, seed_report
from pooled_models import PooledModels, PooledOptions
from pooled_plan import FOLDS, NamedMethod, Size, folds_of, parse_variant, variants_of

ABLATION = Path(requests_report.__file__).with_name("ablation.toml")
SETTINGS = [
    "model.layers=none",
    "data.history=2",
    "tuning.schedule.epochs=1",
    "tuning.schedule.batch_size=64",
    "tuning.schedule.learning_rate=1e-2",
]
SEED = 3
SINGLE = 1
FOLD_NUMBERS = range(1, FOLDS + 1)
SCOPE = Scope((Size.FOLD, Size.SINGLE), SINGLE, 2)
SCORES = OutOfFold(pairs=1, tuning="adapter", learning_rate=1e-2)


class Shrink(Method):
    """Make all weights smaller: quick, and far from nothing."""

    name: ClassVar[str] = "shrink"
    share: float = 0.8
    # Filled by `unlearn`; requests so far, and what their tasks held.
    tasks: ClassVar[list[dict[str, object]]] = []
    interrupted_at: ClassVar[int | None] = None

    def unlearn(self, task):
        if len(self.tasks) == self.interrupted_at:
            raise KeyboardInterrupt
        self.tasks.append(vars(task))
        with task.costs.phase("shrink"), torch.no_grad():
            for parameter in task.original.lm.parameters():
                parameter.mul_(self.share)
        return task.original


METHODS = [("weak", Shrink(share=0.95)), ("strong", Shrink())]


@pytest.fixture
def shrink(monkeypatch):
    monkeypatch.setattr(Shrink, "tasks", [])
    monkeypatch.setattr(Shrink, "interrupted_at", None)
    return Shrink()


def command_line():
    # Under another name: a library of the name of this benchmark may be loaded already.
    path = Path(pooled_files.__file__).with_name("requests.py")
    spec = importlib.util.spec_from_file_location("requests_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(folder, toy, *methods, scores=None, sizes=SCOPE.sizes, folds=FOLD_NUMBERS):
    recipe = Recipe().updated([f"model.name={toy}", f"seed={SEED}", *SETTINGS])
    pooled_files.check_settings(folder, recipe)
    pooled_files.note_machine(folder)
    space = Workspace(recipe)
    space.__dict__["data"] = toy_interactions(users=24, rows=16)
    variants = [NamedMethod(name, method) for name, method in methods]
    options = PooledOptions(
        variants=variants,
        sizes=sizes,
        folds=folds,
        single=SINGLE,
        retrained=SCOPE.retrained,
        scores=scores,
    )
    models = PooledModels(space, Grid(folder, 0, no_words), options)
    models.make()
    return models


def timeless(report):
    """A report without what differs from run to run: all that was read off a clock."""
    text = json.dumps(report, sort_keys=True)
    values = json.loads(text)
    values.pop("hours")
    values["retraining"].pop("seconds")
    for variant in values["variants"].values():
        for size in variant["sizes"].values():
            size.pop("seconds")
            for point in size["points"]:
                point.pop("seconds")
    return values


# --- the plan


@pytest.mark.parametrize("user_count", [5, 23, 170])
def test_folds_are_disjoint_and_cover_everybody(user_count):
    users = np.repeat(np.arange(user_count) * 7, 3)
    folds = folds_of(users, seed=1, single=4, sizes=tuple(Size))
    members = np.concatenate([fold.users for fold in folds])
    assert len(folds) == FOLDS
    assert sorted(members.tolist()) == np.unique(users).tolist()
    for fold in folds:
        by_size = {size: [] for size in Size}
        for request in fold.requests:
            by_size[request.size].append(request.users.tolist())
        assert by_size[Size.FOLD] == [sorted(fold.users.tolist())]
        # The parts cover the fold as well; single users are some of it, each once.
        assert sorted(chain(*by_size[Size.PART])) == sorted(fold.users.tolist())
        singles = list(chain(*by_size[Size.SINGLE]))
        assert len(set(singles)) == len(singles) == min(4, len(fold.users))
        assert set(singles) <= set(fold.users.tolist())


def test_who_is_in_a_request_depends_on_the_seed_alone():
    users = np.arange(40)
    few = folds_of(users, seed=1, single=1, sizes=[Size.SINGLE])
    many = folds_of(users, seed=1, single=8, sizes=tuple(Size))
    other = folds_of(users, seed=2, single=1, sizes=[Size.SINGLE])
    for fold, fuller in zip(few, many, strict=True):
        singles = [request for request in fuller.requests if request.size is Size.SINGLE]
        assert fold.requests[0].users == singles[0].users
        assert fold.requests[0].key == singles[0].key
    assert any(
        one.users.tolist() != two.users.tolist() for one, two in zip(few, other, strict=True)
    )


def test_fewer_users_than_folds_are_refused():
    with pytest.raises(DataError, match="4 training users: 5 folds need one each; keep more rows"):
        folds_of(np.arange(4), seed=0, single=1, sizes=tuple(Size))


def test_variants_are_read_from_the_command_line_and_from_toml(tmp_path):
    variant = parse_variant("wide=e2urec:preset=gain,lora.upper=1.0,alpha=3,lora.rank=4")
    assert variant.name == "wide"
    assert (variant.method.alpha, variant.method.lora.upper, variant.method.lora.rank) == (3, 1, 4)
    # The rest of a part of the settings stays as the method has it.
    assert variant.method.lora.targets == parse_variant("a=e2urec:preset=gain").method.lora.targets
    assert parse_variant("paper=e2urec:preset=paper,beta=0.5").method.teacher == "raw"
    file = tmp_path / "variants.toml"
    file.write_text(
        '[wide]\nmethod = "e2urec"\npreset = "gain"\nalpha = 3\n'
        'lora = { upper = 1.0, rank = 4 }\n[npo]\nmethod = "npo"\n',
        encoding="utf-8",
    )
    read = variants_of(["first=graddiff"], file)
    assert [entry.name for entry in read] == ["first", "wide", "npo"]
    assert read[1].method == variant.method


def test_ablation_has_no_variant_that_cannot_be_built_or_is_there_twice():
    read = variants_of([], ABLATION)
    settings = {(entry.method.name, json.dumps(entry.method.model_dump())) for entry in read}
    assert len(settings) == len(read) > 20


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--variant", "default"], "--variant default: names no method; write NAME=METHOD"),
        (["--variant", "a=e2urec:alpha"], "'alpha' has no '='; write key=value"),
        (["--variant", "a=npp"], "unknown method 'npp'; did you mean 'npo'?"),
        (["--variant", "a=npo:bet=1"], "method 'npo' has unknown setting 'bet'"),
        (["--variant", "a=sisa"], "trains an original of its own"),
        (["--variant", "rows=npo"], "is no name for its folder"),
        (["--variant", "a=npo", "--variant", "a=npo"], "variant 'a': is there twice"),
        (["--variants", "none.toml"], "cannot be read"),
        (["--variant", "a=npo", "--set", "scores.pair=1"], "--set scores.pair=1"),
        (["--variant", "a=npo", "--set", "data.row=1"], "unknown key 'row'; did you mean 'rows'?"),
        ([], "no variant: nothing would be forgotten"),
        (["--report-only"], "nothing is finished there; run without --report-only first"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line_with_status_2(words, reason, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        command_line().main(["--base", "demo", "--work", str(tmp_path / "work"), *words])
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert reason in printed.err
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")


def test_settings_of_scores_are_told_from_those_of_the_recipe():
    split_settings = command_line().split_settings
    settings, scores = split_settings(
        ["data.rows=30", "scores.pairs=2", "scores.tuning=adapter", "scores.lora.rank=4"]
    )
    assert settings == ["data.rows=30"]
    assert (scores.pairs, scores.lora.rank) == (2, 4)
    assert split_settings(["data.rows=30"])[1] is None


# --- figures


@pytest.fixture(scope="module")
def worked(toy, tmp_path_factory):
    """A working folder, the models that were made in it, and the tasks of their methods."""
    folder = tmp_path_factory.mktemp("work") / "demo-3"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shrink, "tasks", [])
        models = make(folder, toy, *METHODS, scores=SCORES)
        return folder, models, Shrink.tasks


@pytest.fixture(scope="module")
def work(worked):
    folder, _, _ = worked
    return folder


@pytest.fixture(scope="module")
def report(work):
    return seed_report(work, SCOPE)


def test_of_one_request_pooled_figures_are_those_of_an_evaluation(work, report):
    answers = answers_of(work)
    request = answers.folds[0].requests[0]
    pooled = SizeFigures(answers, "strong", [request]).as_dict(1.0)
    figures = pooled["figures"]
    rows = answers.rows(request)
    rows_of = {
        "test": np.flatnonzero(~np.isin(answers.data["test.users"], request.users)),
        "forget": rows["forget"],
        "unseen": slice(None),
        "retain": rows["retain"],
    }

    def predictions(part, odds):
        source = part if part in ("test", "unseen") else "train"
        labels = answers.data[f"{source}.labels"][rows_of[part]]
        users = answers.data[f"{source}.users"][rows_of[part]]
        return Predictions(None, NO_HEAD, odds, labels, users)

    def model(odds):
        return Answers(**{part: predictions(part, odds[part]) for part in rows_of})

    original = {}
    for part in rows_of:
        source = part if part in ("test", "unseen") else "train"
        original[part] = answers.original[source][rows_of[part]]
    models = {ORIGINAL: original, UNLEARNED: answers.answers(request, "strong")}
    for number, odds in enumerate(answers.retrained_answers(1), start=1):
        models[retrained(number)] = odds
    evidence = Evidence(
        {role: model({"unseen": original["unseen"], **odds}) for role, odds in models.items()},
        seed=SEED,
        difficulty=Difficulty(rows["control_retain"], {"unseen": rows["control_unseen"]}),
    )
    results = measure_only(evidence, [Memory(), Alignment(), RetainedMemory()])
    assert figures["memory_auc"] == results.figure("memory", "auc", UNLEARNED).as_dict()
    assert figures["memory_loss"] == results.figure("memory", "loss", UNLEARNED).as_dict()
    expected = results.figure("alignment", "correlation", UNLEARNED)
    assert figures["correlation"] == expected.as_dict()
    # Its users are drawn among all training users here: the same value, other limits.
    never = results.tables["retained_memory"].find("never", None)
    assert figures["never"]["value"] == pytest.approx(never.value)
    auc = results.tables["retained_memory"].find("auc", UNLEARNED)
    assert figures["retain_auc"]["value"] == pytest.approx(auc.value)
    judged = verdicts(evidence)[UNLEARNED]
    assert pooled["verdict"]["memory"] == judged.memory.as_dict()
    assert pooled["verdict"]["auc_drop"]["value"] == pytest.approx(judged.auc_drop.value)
    # Two retrained models and a handful of users are too few, whatever the figures are.
    assert pooled["verdict"]["outcome"] != "PASS"
    # A point of the report is the same request.
    point = report["variants"]["strong"]["sizes"]["20%"]["points"][0]
    assert point["memory_auc"] == pytest.approx(figures["memory_auc"]["value"])
    assert point["rows"] == len(rows["forget"])


def answers_of(folder):
    users = pooled_files.read_arrays(folder / pooled_files.DATA)["train.users"]
    folds = folds_of(users, seed=SEED, single=SINGLE, sizes=SCOPE.sizes)
    return PooledAnswers(folder, SEED, folds, SCOPE.retrained)


def test_a_report_has_all_requests_and_nobodys_rows(report):
    assert report["complete"]
    assert report["retraining"]["models"] == FOLDS * SCOPE.retrained
    sizes = report["variants"]["strong"]["sizes"]
    assert (sizes["20%"]["requests"], sizes["single"]["requests"]) == (FOLDS, FOLDS * SINGLE)
    # The five folds together are all training rows.
    assert sizes["20%"]["rows"] == report["rows"]["train"]
    assert sizes["20%"]["users"] == report["users"]
    # The base is called by the name of its folder, without the path on this machine.
    assert "/" not in report["recipe"]["model"]["name"]
    text = json.dumps(report)
    ids = toy_interactions(users=24, rows=16).user_ids
    assert not any(f'"{name}"' in text for name in ids.to_list())
    assert len(sizes["single"]["points"]) == FOLDS * SINGLE
    # What the method tells of itself stands beside what was measured.
    assert all("sentences" in point["outcome"] for point in sizes["single"]["points"])
    difference = sizes["20%"]["figures"]["test_auc_to_original"]["value"]
    points = [point["test_auc_to_original"] for point in sizes["20%"]["points"]]
    assert difference == pytest.approx(np.mean(points))


def test_methods_are_given_the_scores_of_the_rows_of_their_request(worked):
    folder, models, tasks = worked
    train = pooled_files.read_arrays(folder / pooled_files.SCORES)["train.mean"]
    requests = [request for fold in models.folds() for request in fold.requests for _ in METHODS]
    for request, task in zip(requests, tasks, strict=True):
        is_named = np.isin(models.space.split.train.users, request.users)
        np.testing.assert_array_equal(task["scores"].forget.mean, train[is_named])
        assert len(task["scores"].calibration.mean) == len(task["calibration"])


# --- interrupts


def test_folds_made_apart_and_an_interrupted_one_end_as_those_of_one_run(
    report, toy, tmp_path, shrink, monkeypatch
):
    make(tmp_path, toy, *METHODS, scores=SCORES, folds=[4])
    # In the second fold, before its single user.
    stop = 2 * len(METHODS) * len(SCOPE.sizes) - len(METHODS)
    monkeypatch.setattr(Shrink, "interrupted_at", stop)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, toy, *METHODS, scores=SCORES, folds=[5, 1])
    # What is finished can be reported at any time.
    part = seed_report(tmp_path, SCOPE)
    assert not part["complete"]
    sizes = [size for variant in part["variants"].values() for size in variant["sizes"].values()]
    assert sum(size["requests"] for size in sizes) == stop
    monkeypatch.setattr(Shrink, "interrupted_at", None)
    for folds in ([5, 1], [2, 3]):
        make(tmp_path, toy, *METHODS, scores=SCORES, folds=folds)
    # Nothing was made twice.
    assert len(shrink.tasks) == FOLDS * len(METHODS) * len(SCOPE.sizes)
    assert timeless(seed_report(tmp_path, SCOPE)) == timeless(report)


def test_a_method_that_fails_costs_its_own_requests_alone(toy, tmp_path, shrink, monkeypatch):
    class Broken(Shrink):
        def unlearn(self, task):
            raise ValueError("no such thing")

    models = make(tmp_path, toy, ("bad", Broken()), ("good", shrink), sizes=[Size.FOLD])
    assert len(models.failed) == FOLDS
    report = seed_report(tmp_path, Scope([Size.FOLD], SINGLE, 2))
    counts = {name: v["sizes"]["20%"]["requests"] for name, v in report["variants"].items()}
    assert counts == {"bad": 0, "good": FOLDS}
    assert not report["complete"]


def test_a_folder_of_other_settings_is_refused_and_so_is_a_variant(work, toy):
    with pytest.raises(ConfigError, match=r"begun with data.history=2, not 3; give --work another"):
        other = [f"model.name={toy}", f"seed={SEED}", *SETTINGS, "data.history=3"]
        pooled_files.check_settings(work, Recipe().updated(other))
    with pytest.raises(ConfigError, match="variant 'weak': was begun with other settings"):
        make(work, toy, ("weak", Shrink(share=0.5)), scores=SCORES)
    with pytest.raises(ConfigError, match=r"was made with scores.pairs=1, not 2"):
        make(work, toy, ("weak", Shrink(share=0.95)), scores=SCORES.model_copy(update={"pairs": 2}))


def test_a_working_folder_may_be_named_otherwise_the_next_time(tmp_path):
    recipe_of = command_line().base_recipe
    near = recipe_of("tiny", 7, ["data.rows=300"], tmp_path / "tiny-7")
    far = recipe_of("tiny", 7, ["data.rows=300"], Path("elsewhere") / "tiny-7")
    assert (near.seed, near.data.rows, near.model.name) == (7, 300, str(tmp_path / "tiny-7/base"))
    pooled_files.check_settings(tmp_path, near)
    pooled_files.check_settings(tmp_path, far)


# --- the table and the picture


def test_table_and_picture_come_from_the_json_alone(report, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(requests_aims, "VARIANT", "strong")
    file = tmp_path / "requests-demo-3.json"
    write_json(file, {"base": "demo"} | report)
    page = tmp_path / "page.md"
    marks = "<!-- aims -->\nformer\n<!-- /aims -->\n\n<!-- requests -->\nformer\n<!-- /requests -->"
    page.write_text(f"# Page\n\n{marks}\n\nEnd\n", encoding="utf-8")
    picture = tmp_path / "picture.svg"
    words = [str(file), "--plot", str(picture), "--into", str(page)]
    requests_report.main(words)
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert "*Base demo, requests of 20% of the users*" in lines
    rows = [line for line in lines if line.startswith(("| weak", "| strong", "| retrained"))]
    # Two variants at either size; the retrained models once.
    assert len(rows) == 5
    assert {line.count("|") for line in rows} == {len(requests_report.HEADINGS) + 1}
    assert any(" 5 of 5 " in row for row in rows)
    content = page.read_text(encoding="utf-8")
    assert printed.strip() in content
    assert "former" not in content
    assert "*Base demo: what was aimed at (bold: reached), on seeds 3*" in content
    assert content.endswith("<!-- /requests -->\n\nEnd\n")
    first = picture.read_bytes()
    assert first.startswith(b"<svg")
    requests_report.main(words)
    assert picture.read_bytes() == first


def test_report_refuses_another_file_and_a_page_without_a_place(tmp_path, work):
    other = tmp_path / "other.json"
    other.write_text("[]", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"is no report of requests.py; name another file"):
        requests_report.main([str(other)])
    page = tmp_path / "page.md"
    page.write_text("<!-- aims -->\n<!-- /aims -->\n", encoding="utf-8")
    with pytest.raises(DataError, match="lacks <!-- requests -->"):
        report_parts.put_into(page, {"aims": "text", "requests": "text"})
    assert page.read_text(encoding="utf-8") == "<!-- aims -->\n<!-- /aims -->\n"


def test_figures_without_limits_are_shown_without():
    text = report_parts.figure_text
    assert text({"value": 0.123, "low": None, "high": None}, 2) == "0.12"
    assert text({"value": None, "low": None, "high": None}, 2) == "–"
    assert text({"value": 0.123, "low": 0.1, "high": 0.2}, 2) == "0.12 [0.10, 0.20]"
