"""Comparisons on a toy model with real files: whole, interrupted, with methods from outside."""

import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest

from e2urec.core.errors import ConfigError, ModelError, RunError
from e2urec.evaluation.roles import ORIGINAL, unlearned_by
from e2urec.experiments.comparison import estimate as estimates
from e2urec.experiments.comparison import team as teams
from e2urec.experiments.comparison.compare import compare
from e2urec.experiments.comparison.estimate import estimate
from e2urec.experiments.comparison.jobs import JobOptions
from e2urec.experiments.comparison.memorised import read_users
from e2urec.experiments.comparison.plan import ComparisonPlan
from e2urec.experiments.comparison.seed_models import SeedModels
from e2urec.experiments.grid import Grid
from e2urec.experiments.odds_at_hand import RETAIN_SAMPLE_ROWS
from e2urec.experiments.recipe import Recipe, RequestRecipe
from e2urec.experiments.workspace import Workspace
from e2urec.methods import all_methods
from e2urec.methods.neggrad import NegGrad
from e2urec.models.recommender import Recommender
from e2urec.runs.machine import this_machine
from e2urec.training.loop import silent
from e2urec.unlearning.method import Method
from e2urec.unlearning.task import Task

SMOKE = Path(__file__).parents[2] / "recipes" / "compare-smoke.toml"
SMALL = [
    "model.layers=none",
    "data.rows=100",
    "data.per_user=10",
    "data.test_rows=40",
    "data.held_rows=40",
    "compare.resamples=100",
    "tuning.schedule.epochs=1",
    "tuning.schedule.learning_rate=1e-2",
]
FEW = ["compare.methods=['neggrad', 'e2urec']", "retrained=2"]


def recipe(toy: Path, *more: str) -> Recipe:
    return Recipe.load(SMOKE).updated([f"model.name={toy}", *SMALL, *more])


def few_steps(methods: Iterable[str]) -> str:
    """The smoke recipe's settings of methods, and as few steps and shards as each can take."""
    settings = Recipe.load(SMOKE).compare.settings
    tables = []
    for name in methods:
        fewest = {"min_steps", "augment_min_steps", "shards"}
        fields = all_methods()[name].model_fields.keys() & fewest
        given = settings.get(name, {}) | dict.fromkeys(sorted(fields), 2)
        lines = [f"{field} = {value}" for field, value in given.items()]
        tables.append(f"{name} = {{{', '.join(lines)}}}")
    return f"compare.settings={{{', '.join(tables)}}}"


def figures(folder: Path) -> list[dict[str, object]]:
    """The cells of a finished comparison without what they cost."""
    cells = json.loads((folder / "results.json").read_text())["cells"]
    return [{key: value for key, value in cell.items() if key != "cost"} for cell in cells]


COMPARED = set(all_methods()) - {"finetune"}


@pytest.fixture(scope="module")
def smoke(toy, tmp_path_factory):
    """The folder of a comparison of every method, what was found, and what was told meanwhile."""
    folder = tmp_path_factory.mktemp("smoke") / "first"
    told: list[str] = []
    found = compare(recipe(toy, few_steps(COMPARED)), folder, say=told.append)
    return folder, found, told


def test_smoke_recipe_compares_every_method_with_finite_figures(smoke):
    folder, found, told = smoke
    assert found.failed == {}
    expected = COMPARED | {"original", "retrained-1", "retrained-2"}
    expected |= {"placebo-temperature", "placebo-retain"}
    cells = json.loads((folder / "results.json").read_text())["cells"]
    assert {cell["model"] for cell in cells} == expected
    for cell in cells:
        values = [figure["value"] for figure in cell["figures"].values()]
        assert all(map(math.isfinite, values)), cell["model"]
        if cell["model"] not in ("original", "placebo-temperature"):
            assert cell["cost"]["seconds"]["total"] > 0
    assert told[-1].startswith(f"[{len(told)} of {len(told)}]")

    long = pl.read_parquet(folder / "results.parquet")
    assert long.columns == [
        *("model", "seed", "request", "measure", "column", "group", "value", "low", "high", "n")
    ]
    value = long.filter(model="e2urec", measure="memory", column="auc")["value"].item()
    (cell,) = (cell for cell in cells if cell["model"] == "e2urec")
    assert value == cell["figures"]["memory_auc"]["value"]
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 3
    assert not re.findall(r"""(?:src|href)=["']http|url\(http|@import""", page)
    lines = len(expected - {"retrained-2"})
    assert (folder / "table.tex").read_text().count("\\\\\n") == lines + 1, (
        "a line a model, and the head"
    )
    left = {path.name for path in folder.rglob("*")}
    assert left == {
        "results.json",
        "results.parquet",
        "table.md",
        "table.tex",
        "report.html",
        "run.json",
    }


def test_comparison_says_where_and_how_long_its_cells_were_made(smoke):
    folder, _, _ = smoke
    kept = json.loads((folder / "results.json").read_text())
    assert kept["machines"] == [this_machine()]
    costs = [cell["cost"]["seconds"].get("total", 0) for cell in kept["cells"]]
    assert kept["seconds"] > sum(costs) > 0
    (shared,) = kept["shared"]
    assert shared["figures"]["headroom_auc"]["n"] == kept["rows"]["1"]["forget"]


def test_comparison_killed_in_the_middle_goes_on_to_the_same_figures(toy, tmp_path):
    few = [*FEW, few_steps(["neggrad", "e2urec"])]
    wanted = recipe(toy, *few, "compare.seeds=[0, 1]")
    compare(wanted, tmp_path / "whole")
    settings = [
        word
        for each in (f"model.name={toy}", *SMALL, *few, "compare.seeds=[0, 1]")
        for word in ("--set", each)
    ]
    words = [
        sys.executable,
        "-m",
        "e2urec",
        "compare",
        str(SMOKE),
        "--out",
        str(tmp_path / "cut"),
        *settings,
    ]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[4 of"):
                os.kill(process.pid, signal.SIGKILL)
                break
    assert not (tmp_path / "cut").exists()
    assert (tmp_path / "cut.partial" / "cells" / "seed-0" / "model").is_dir()
    with pytest.raises(RunError, match="was begun with other settings"):
        compare(recipe(toy, *few, "compare.seeds=[0, 2]"), tmp_path / "cut")
    weights = tmp_path / "cut.partial" / "cells" / "seed-0" / "model" / "recommender.json"
    kept = weights.stat().st_mtime_ns
    seen: list[int] = []

    def watch(text: str) -> None:
        seen.append(weights.stat().st_mtime_ns)

    compare(wanted, tmp_path / "cut", say=watch)
    assert set(seen) == {kept}, "a finished cell is not made again"
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")
    cells = figures(tmp_path / "cut")
    assert {cell["seed"] for cell in cells} == {0, 1}
    neggrad = next(cell for cell in cells if cell["model"] == "neggrad")
    assert "projection_projection" in neggrad["figures"]
    assert "alignment_correlation" in neggrad["figures"]
    assert all("retained_memory_auc" in cell["figures"] for cell in cells)
    assert not list(tmp_path.glob("*.partial"))


def test_method_alone_gives_the_figures_that_it_has_among_others(toy, tmp_path):
    methods = ["neggrad", "ifru", "e2urec", "sisa"]
    settings = few_steps(methods)
    requests = ["{ratio=0.3, seed=42}", "{ratio=0.2, seed=3}"]
    asked = [f"compare.requests=[{', '.join(requests)}]", "retrained=1"]
    compare(recipe(toy, f"compare.methods={methods}", settings, *asked), tmp_path / "all")
    among = {cell["model"]: cell for cell in figures(tmp_path / "all") if cell["request"] == 2}
    last = [f"compare.requests=[{requests[1]}]", "retrained=1"]
    # Those with preparations of their own.
    for name in methods[1:]:
        compare(recipe(toy, f"compare.methods=['{name}']", settings, *last), tmp_path / name)
        for cell in figures(tmp_path / name):
            # Placebo (ii) takes as many steps as the longest method; differences need e2urec.
            if cell["model"] != "placebo-retain":
                assert own_figures(cell) == own_figures(among[cell["model"]])


def own_figures(cell):
    """The figures of a cell without its differences to another method."""
    found = cell["figures"].items()
    return {name: figure for name, figure in found if not name.startswith("paired_difference")}


def test_hours_are_not_told_where_a_cell_does_not_say_them(tmp_path):
    grid = Grid(tmp_path, 0, print)

    def nested(folder: Path) -> None:
        grid.folder_of("inner", lambda folder: time.sleep(0.2))

    started = time.perf_counter()
    outer = grid.folder_of("outer", nested)
    whole = time.perf_counter() - started
    making = Grid(tmp_path, 0, print).making()
    assert making.seconds is not None
    assert 0.2 < making.seconds < whole, "what was made on the way counts once"
    (outer / "made.json").unlink()
    making = grid.making()
    assert making.seconds is None
    assert making.machines == [this_machine()]


class InPlace:
    """Stands in for submitit: a job runs where it is submitted, from its pickle."""

    def submit(self, *call: object) -> SimpleNamespace:
        """The job, which has ended."""
        worker, *arguments = pickle.loads(pickle.dumps(call))
        worker(*arguments)
        return SimpleNamespace(done=lambda: True)


def test_jobs_side_by_side_give_the_figures_of_one(toy, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    join(monkeypatch, Broken)
    monkeypatch.setattr(teams, "executor_of", lambda options, folder: InPlace())
    wanted = recipe(
        toy,
        "compare.methods=['neggrad', 'broken']",
        few_steps(["neggrad"]),
        "compare.requests=[{ratio=0.2, pick='most memorised'}]",
        "compare.trials=2",
        "compare.shadows=true",
        "shadows.count=2",
        "retrained=1",
        "data.rows=80",
        # Fewer of a user, and the toy remembers none of them.
        "data.per_user=15",
    )
    one = compare(wanted, tmp_path / "one")
    told: list[str] = []
    two = compare(wanted, tmp_path / "two", say=told.append, jobs=JobOptions(2))
    assert figures(tmp_path / "one") == figures(tmp_path / "two")
    assert one.failed == two.failed
    assert set(two.failed) == {"seed-0/request-1/broken"}
    assert one.trials == two.trials
    counts = [line for line in told if line.startswith("[")]
    assert counts[-1].startswith(f"[{len(counts)} of {len(counts)}]")
    tables = [(tmp_path / name / "table.md").read_text() for name in ("one", "two")]
    assert ["cannot be compared" in table for table in tables] == [False, True]
    assert {path.name for path in (tmp_path / "two.partial").iterdir()} == {
        *("cells", "settings.hmac", "shadows")
    }


def test_every_seed_of_a_comparison_asks_about_the_same_rows_of_the_retain_set(toy, tmp_path):
    wanted = recipe(toy, "compare.seeds=[0, 1]")
    grid = Grid(tmp_path, 0, print)
    first, second = (
        SeedModels.of(wanted, seed, grid, silent).study(wanted.compare.requests[0]).rows
        for seed in (0, 1)
    )
    assert (first.retain_sample == second.retain_sample).all()
    assert (first.difficulty.retain == second.difficulty.retain).all()
    assert len(first.difficulty.retain) == len(first.retain)
    for name in ("calibration", "unseen"):
        assert len(first.difficulty.outsiders[name]) == len(getattr(first, name))
    asked = first.evaluation.retain
    assert asked is not None
    assert (asked.labels == first.retain.labels[first.retain_sample]).all()
    assert len(asked) == min(RETAIN_SAMPLE_ROWS, len(first.retain))


def test_single_users_are_forgotten_one_by_one_and_measured_as_one_set(toy, tmp_path):
    wanted = recipe(
        toy,
        "compare.methods=['neggrad']",
        few_steps(["neggrad"]),
        "compare.requests=[{singles=2, seed=3}]",
        "retrained=1",
        "data.rows=80",
    )
    told: list[str] = []
    found = compare(wanted, tmp_path / "out", say=told.append)
    assert found.failed == {}
    assert told[-1].startswith(f"[{len(told)} of {len(told)}]")
    assert found.rows[1]["removed_users"] == 2
    odds = found.log_odds[0, 1]
    assert len(odds[unlearned_by("neggrad")]) == found.rows[1]["forget"]
    assert (odds[unlearned_by("neggrad")] != odds[ORIGINAL]).any()
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert kept["requests"]["1"].startswith("2 single users")
    (neggrad,) = (cell for cell in kept["cells"] if cell["model"] == "neggrad")
    assert "memory_within" in neggrad["figures"]
    assert 0 <= kept["control_test_auc"]["1"] <= 1
    assert "means of items and users" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("singles", "message"),
    [(500, "singles = 500 of"), (9, r"singles = 9 models share \d unseen rows")],
)
def test_single_users_that_are_too_many_are_refused_before_anything_is_trained(
    toy, tmp_path, singles, message
):
    # The first request could be made; its hours would be lost with the second.
    requests = f"compare.requests=[{{ratio=0.2}}, {{singles={singles}}}]"
    wanted = recipe(toy, "compare.methods=['neggrad']", requests, "data.held_rows=6")
    told: list[str] = []
    with pytest.raises(ConfigError, match=message):
        compare(wanted, tmp_path / "out", say=told.append)
    assert told == []


def test_users_remembered_most_are_the_first_seeds_for_all_seeds_and_found_once(toy, tmp_path):
    wanted = recipe(
        toy,
        "compare.seeds=[0, 1]",
        "compare.requests=[{ratio=0.2, pick='most memorised'}]",
        "data.rows=80",
    )
    told: list[str] = []
    grid = Grid(tmp_path, 0, told.append)
    first, second = (SeedModels.of(wanted, seed, grid, silent) for seed in (0, 1))
    request = wanted.compare.requests[0]
    users = [np.unique(models.parts(request).forget.users) for models in (first, second)]
    assert users[0].tolist() == users[1].tolist()
    train = first.space.split.train
    assert len(users[0]) == round(0.2 * len(np.unique(train.users)))
    random = RequestRecipe(ratio=0.2, seed=request.seed)
    assert users[0].tolist() != np.unique(first.parts(random).forget.users).tolist()
    # Seed 1 has trained no original for it.
    assert not grid.has("seed-1/model")
    # A killed comparison leaves these files: who has no key cannot read from them who they are.
    (file,) = tmp_path.glob("remembered-*/users*")
    written = file.read_bytes()
    for code in users[0].tolist():
        assert code.to_bytes(8, "little") not in written
    assert b"codes" not in written
    assert read_users(file, grid.store.key, "").tolist() == users[0].tolist()
    with pytest.raises(RunError, match="is damaged; make it anew"):
        read_users(file, bytes(32), "make it anew")


def join(monkeypatch, *methods: type[Method]) -> None:
    """Have another package offer methods."""
    real = metadata.entry_points
    entries = []
    for method in methods:
        place = f"{__name__}:{method.__name__}"
        entries.append(metadata.EntryPoint(method.__name__, place, "e2urec.methods"))
    monkeypatch.setattr(
        "importlib.metadata.entry_points",
        lambda group: entries if group == "e2urec.methods" else real(group=group),
    )


class Outsider(Method):
    """Do nothing at all."""

    name = "outsider"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"lazy": {}}

    def unlearn(self, task: Task) -> Recommender:
        """The original itself."""
        return task.original

    def plan(self, forget: int, retain: int, schedule: object) -> dict[str, int]:
        """Nothing is read."""
        return {}

    def updates(self, forget: int, retain: int, schedule: object) -> int:
        """One placebo step, the least there is."""
        return 1


class Broken(Outsider):
    """Fail."""

    name = "broken"

    def unlearn(self, task: Task) -> Recommender:
        """Always an error."""
        raise ZeroDivisionError("of its own")


def test_methods_of_other_packages_join_and_one_that_fails_leaves_the_others(
    toy, tmp_path, monkeypatch
):
    join(monkeypatch, Outsider, Broken)
    chosen = ("compare.methods=['outsider', 'broken']", "compare.presets={outsider='lazy'}")
    wanted = recipe(toy, *chosen, "compare.settings={}")
    found = compare(wanted, tmp_path / "out")
    assert found.failed == {"seed-0/request-1/broken": "ZeroDivisionError: of its own"}
    results = found.results[0, 1]
    memory = results.figure("memory", "auc", unlearned_by("outsider"))
    assert memory.value == pytest.approx(1)
    assert unlearned_by("broken") not in results.roles
    assert "ZeroDivisionError" in (tmp_path / "out" / "report.html").read_text()
    # Whatever shows the figures says of which preset they are, where it is not the default.
    for name in ("report.html", "table.md", "table.tex"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "Presets other than the default: outsider: lazy." in text
    assert found.as_dict()["presets"] == {"outsider": "lazy"}

    # Once its method is mended, the same command tries the failed cell again, and that one alone.
    cell = tmp_path / "out.partial" / "cells" / "seed-0" / "request-1" / "outsider" / "cell.json"
    before = cell.stat().st_mtime_ns
    monkeypatch.setattr(Broken, "unlearn", Outsider.unlearn)
    seen: list[int] = []
    again = compare(wanted, tmp_path / "out", say=lambda text: seen.append(cell.stat().st_mtime_ns))
    assert set(seen) == {before}
    assert again.failed == {}
    assert unlearned_by("broken") in again.results[0, 1].roles
    assert "ZeroDivisionError" not in (tmp_path / "out" / "report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(RunError, match="exists already"):
        compare(wanted, tmp_path / "out")


def test_settings_are_chosen_on_other_users_by_as_many_trials_for_each_method(
    toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(NegGrad, "unread", lambda method, forget: ("weight",))
    told: list[str] = []
    wanted = recipe(
        toy,
        "compare.methods=['neggrad', 'simnpo', 'retrain']",
        "compare.settings={}",
        "compare.trials=3",
        "compare.tolerance=1",
    )
    found = compare(wanted, tmp_path / "out", say=told.append)
    (sentence,) = [text for text in told if "does not read" in text]
    assert sentence.startswith("method 'neggrad': its trials differ in weight, which a development")
    tried = {
        name: [trial for trial in found.trials if trial["method"] == name]
        for name in ("neggrad", "simnpo")
    }
    assert {len(trials) for trials in tried.values()} == {3}
    assert len(found.trials) == 6, "retraining has nothing to choose"
    for name, trials in tried.items():
        assert trials[0]["settings"] == {}
        best = min(trials, key=lambda trial: abs(trial["memory_auc"]))
        assert found.settings[name] == best["settings"]
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(kept["trials"]) == 6


def test_estimate_counts_the_cells_and_writes_nothing(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = recipe(toy, "compare.seeds=[0, 1]", "compare.trials=3")
    found = estimate(wanted)
    assert found.hours > 0
    searched = [
        name for name, method in all_methods().items() if method.search and name != "finetune"
    ]
    assert set(found.rows) >= {"originals", "retrained", "answers", *searched}
    assert found.cells == 2 + 3 + 3 * len(searched) + 2 * (
        3 + len(ComparisonPlan.of(wanted).trials) + 1
    )
    assert not list(tmp_path.iterdir())


def test_estimate_for_several_jobs_is_of_the_busiest_and_of_one_it_is_the_sum(toy, monkeypatch):
    monkeypatch.setattr(estimates, "_seconds_per_row", lambda recipe, space: 1.0)
    wanted = recipe(
        toy,
        "compare.methods=['neggrad', 'sisa', 'apa']",
        "compare.settings={}",
        "compare.seeds=[0, 1]",
        "compare.trials=2",
        "compare.shadows=true",
        "scores.pairs=1",
    )
    monkeypatch.setattr(estimates, "visible_gpus", list)
    monkeypatch.setattr(estimates, "core_count", lambda: 2000)
    hours = [estimate(wanted, JobOptions(jobs)).hours for jobs in (1, 2, 1000)]
    assert hours[0] > hours[1] > hours[2]
    # Jobs that share two cores take as long as two.
    monkeypatch.setattr(estimates, "core_count", lambda: 2)
    assert estimate(wanted, JobOptions(1000)).hours == hours[1]
    assert estimate(wanted, JobOptions(10**12, "slurm")).hours == hours[2]
    assert hours[1] >= hours[0] / 2
    plan = ComparisonPlan.of(wanted)
    counter = estimates._RowCounter.of(plan, Workspace(wanted))
    found = estimate(wanted)
    assert sum(counter.costs(found.rows).values()) == pytest.approx(3600 * hours[0])


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("compare.methods=['npoo']", "did you mean 'npo'"),
        ("compare.settings={npo = {bta = 1}}", "did you mean 'beta'"),
        ("compare.settings={nop = {beta = 1}}", "did you mean 'npo'"),
        ("compare.trials=500", "ask for fewer"),
        ("compare.requests=[{ratoi = 0.2}]", "did you mean 'ratio'"),
        ("compare.seeds=[]", "compare.seeds"),
    ],
)
def test_wrong_comparison_is_told_in_one_line_before_anything_is_made(toy, tmp_path, setting, told):
    with pytest.raises(ConfigError, match=told) as error:
        compare(recipe(toy, setting), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_comparison_that_fails_before_its_first_cell_leaves_nothing(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded"):
        compare(recipe(tmp_path / "none"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("unit", "ratio"), [("interactions", 0.02), ("items", 0.05)])
def test_settings_of_requests_for_rows_or_items_are_chosen_on_others(toy, tmp_path, unit, ratio):
    request = f"{{ratio={ratio}, unit='{unit}', seed="
    wanted = recipe(
        toy,
        "compare.methods=['neggrad']",
        "retrained=1",
        few_steps(["neggrad"]),
        "compare.trials=2",
        f"compare.requests=[{request}1}}]",
        f"compare.development={request}2}}",
    )
    found = compare(wanted, tmp_path / "out")
    assert found.rows[1]["removed"] > 0
    assert {trial["trial"] for trial in found.trials} == {0, 1}


def test_development_request_among_nobody_is_refused(toy, tmp_path):
    wanted = recipe(
        toy,
        "compare.methods=['neggrad']",
        "compare.settings={}",
        "compare.trials=2",
        "compare.requests=[{ratio=0.5, unit='interactions'}]",
    )
    with pytest.raises(
        ConfigError, match=r"compare\.development: every one of the users is in a request"
    ):
        compare(wanted, tmp_path / "out")
