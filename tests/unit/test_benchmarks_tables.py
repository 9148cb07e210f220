"""The tables: cells of a finished comparison, and page, picture and README of the cells."""

import copy
import json
import shlex
import sys
from pathlib import Path

import pytest

from e2urec.experiments.comparison.compare import compare
from e2urec.experiments.comparison.plan import ComparisonPlan
from e2urec.experiments.recipe import Recipe, parse_settings
from e2urec.runs.files import write_json
from e2urec.runs.record import RunRecord, write_record
from toy_data import quick_settings, write_ratings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import report_parts
import table_cells
import table_groups
import table_report

RECIPE = """
retrained = 1

[scores]
pairs = 1

[compare]
methods = ["e2urec", "neggrad", "retrain"]
seeds = [0, 1]
requests = [{ ratio = 0.3, seed = 42 }, { ratio = 0.2, pick = "most memorised" }]
development = { ratio = 0.2, seed = 7 }
trials = 2
resamples = 100

[compare.settings]
e2urec = { batch_size = 64, solving = { iterations = 1 } }
neggrad = { min_steps = 2 }
"""


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """The folder of a toy comparison, and its recipe's file."""
    folder = tmp_path_factory.mktemp("tables")
    file = folder / "table-toy.toml"
    file.write_text(RECIPE, encoding="utf-8")
    settings = [*quick_settings(write_ratings(folder), toy), "scores.pairs=1"]
    recipe = Recipe.load(file).updated(settings)
    compare(recipe, folder / "comparison")
    return folder / "comparison", file


@pytest.fixture
def cells(made, tmp_path, monkeypatch):
    """The folder of the cells of the toy comparison."""
    folder, file = made
    monkeypatch.setattr(table_groups, "RECIPES", file.parent)
    table_cells.main([str(folder), "--recipe", str(file), "--out", str(tmp_path / "cells")])
    return tmp_path / "cells"


@pytest.fixture
def report(cells, tmp_path):
    """A function that makes the page; it returns page and README."""
    readme = tmp_path / "README.md"
    readme.write_text("# Head\n\n<!-- results -->\nold\n<!-- /results -->\n\nEnd\n")

    def make():
        page = tmp_path / "results.md"
        words = ["--cells", str(cells), "--page", str(page), "--readme", str(readme)]
        table_report.main(words)
        return page.read_text(encoding="utf-8"), readme.read_text(encoding="utf-8")

    return make


def change(path, **values):
    """Change a cell: figures of a model by `model__figure`."""
    cell = json.loads(path.read_text())
    for name, (low, value, high) in values.items():
        model, figure = name.split("__")
        cell["models"][model]["figures"][figure] |= {"low": low, "value": value, "high": high}
    cell["rows"]["forgotten_users"] = 40
    write_json(path, cell)


def test_each_seed_and_request_gets_a_file_with_all_that_stands_behind_a_row(made, cells):
    folder, _ = made
    names = {path.relative_to(cells).as_posix() for path in cells.rglob("*.json")}
    requests = ("ratio-0.3-seed-42", "ratio-0.2-most-memorised")
    assert names == {f"table-toy/seed-{seed}/{name}.json" for seed in (0, 1) for name in requests}
    results = json.loads((folder / "results.json").read_text())
    cell = json.loads((cells / "table-toy" / "seed-1" / "ratio-0.3-seed-42.json").read_text())
    assert cell["machines"] == [report_parts.machine_name(results["machines"][0])]
    assert cell["hours"] == results["seconds"] / 3600
    assert cell["versions"]["torch"]
    assert cell["rows"] == results["rows"]["1"]
    assert cell["figures"]["headroom_auc"]["n"] == cell["rows"]["forget"]
    neggrad = cell["models"]["neggrad"]
    assert neggrad["chosen"] == results["settings"]["neggrad"]
    assert [trial["trial"] for trial in neggrad["trials"]] == [0, 1]
    assert not neggrad["exact"]
    assert cell["models"]["retrain"]["exact"]
    (expected,) = (
        entry["figures"]["memory_auc"]
        for entry in results["cells"]
        if (entry["model"], entry["seed"], entry["request"]) == ("neggrad", 1, 1)
    )
    assert neggrad["figures"]["memory_auc"] == expected


def test_cells_hold_no_user_and_no_path_of_the_machine(made, cells):
    folder, _ = made
    for path in cells.rglob("*.json"):
        text = path.read_text()
        assert "collateral" not in text
        assert "worst_user" not in text
        assert str(folder.parent) not in text


def test_command_of_a_row_asks_for_that_row_with_the_settings_that_were_chosen(made, cells):
    _, file = made
    cell = json.loads((cells / "table-toy" / "seed-1" / "ratio-0.3-seed-42.json").read_text())
    neggrad = cell["models"]["neggrad"]
    words = shlex.split(neggrad["repeat"])
    assert words[:3] == ["e2urec", "compare", "recipes/table-toy.toml"]
    settings = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    # What was changed on the command line is found, without its folder.
    assert parse_settings(settings)["data"]["source"] == Path(cell["recipe"]["data"]["source"]).name
    plan = ComparisonPlan.of(Recipe.load(file).updated(settings))
    assert plan.recipe.compare.seeds == (1,)
    assert list(plan.trials) == ["neggrad"]
    assert plan.method("neggrad").model_dump(mode="json") == neggrad["cost"]["settings"]
    (request,) = plan.requests.values()
    assert (request.ratio, request.seed, request.pick) == (0.3, 42, "random")
    # Only the first seed's original knows whom it remembers most.
    cell = json.loads(
        (cells / "table-toy" / "seed-1" / "ratio-0.2-most-memorised.json").read_text()
    )
    assert "compare.seeds=[0, 1]" in cell["models"]["neggrad"]["repeat"]


@pytest.mark.parametrize("request_name", ["ratio-0.3-seed-42", "ratio-0.2-most-memorised"])
def test_command_of_a_row_gives_the_same_figures(toy, made, cells, tmp_path, request_name):
    _, file = made
    cell = json.loads((cells / "table-toy" / "seed-1" / f"{request_name}.json").read_text())
    expected = cell["models"]["e2urec"]
    words = shlex.split(expected["repeat"])
    settings = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    paths = [f"data.source={file.parent / 'ratings.csv'}", f"model.name={toy}"]
    compare(Recipe.load(file).updated([*settings, *paths]), tmp_path / "again")
    table_cells.main([str(tmp_path / "again"), "--recipe", str(file), "--out", str(tmp_path)])
    again = json.loads((tmp_path / "table-toy" / "seed-1" / f"{request_name}.json").read_text())
    # The projection needs an original of another seed.
    figures = {
        name: figure
        for name, figure in expected["figures"].items()
        if not name.startswith("projection")
    }
    found = again["models"]["e2urec"]["figures"]
    assert {name: found[name] for name in figures} == figures


def test_what_is_no_finished_comparison_is_refused_in_one_line(made, tmp_path):
    folder, file = made
    words = ["--recipe", str(file), "--out", str(tmp_path / "cells")]
    with pytest.raises(SystemExit, match=r"error: .*no run folder|error: .*is no folder"):
        table_cells.main([str(tmp_path / "nothing"), *words])
    other = tmp_path / "original"
    other.mkdir()
    write_record(other, RunRecord(kind="original", recipe={}, seed=0))
    with pytest.raises(SystemExit, match=r"is no comparison \(original\); name one's folder"):
        table_cells.main([str(other), *words])
    with pytest.raises(SystemExit, match=r"--machine: the comparison ran on .*; leave"):
        table_cells.main([str(folder), *words, "--machine", "another"])
    assert not (tmp_path / "cells").exists()


def test_comparison_of_earlier_code_is_told_to_lack_machine_hours_and_pairs(
    made, tmp_path, monkeypatch, capsys
):
    folder, file = made
    read = table_cells.read_comparison

    def earlier(path):
        run, results = read(path)
        for key in ("machines", "seconds", "shared"):
            del results[key]
        for cell in results["cells"]:
            pairs = [name for name in cell["figures"] if name.startswith("paired_difference")]
            for name in pairs:
                del cell["figures"][name]
        return run, results

    monkeypatch.setattr(table_cells, "read_comparison", earlier)
    words = [str(folder), "--recipe", str(file), "--out", str(tmp_path / "cells")]
    table_cells.main(words)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert ["--machine" in line for line in notes] == [True, False, False]
    table_cells.main([*words, "--machine", "a small one"])
    assert "--machine" not in capsys.readouterr().out
    (group, _) = table_groups.read_groups(tmp_path / "cells")
    assert group.first["machines"] == ["a small one"]
    assert group.against_ours("neggrad") == "–"


def test_cell_with_fewer_methods_does_not_take_the_place_of_a_fuller_one(cells):
    path = cells / "table-toy" / "seed-0" / "ratio-0.3-seed-42.json"
    before = path.read_bytes()
    cell = json.loads(before)
    fewer = copy.deepcopy(cell)
    del fewer["models"]["neggrad"]
    with pytest.raises(Exception, match="has neggrad, which this comparison lacks"):
        table_cells.write_cell(fewer, cells)
    assert path.read_bytes() == before
    del cell["models"]["neggrad"]
    write_json(path, cell)
    table_cells.write_cell(json.loads(before), cells)
    assert path.read_bytes() == before


def test_rows_of_methods_measured_again_take_the_place_of_theirs_alone(made, cells):
    path = cells / "table-toy" / "seed-1" / "ratio-0.3-seed-42.json"
    before = json.loads(path.read_text())
    assert any("paired_difference_test_auc" in m["figures"] for m in before["models"].values())
    again = copy.deepcopy(before)
    del again["models"]["retrain"], again["models"]["placebo-retain"]
    figures = again["models"]["e2urec"]["figures"]
    figures["memory_auc"]["value"] = 0.125
    again["models"]["e2urec"]["trials"] = []
    again["models"]["neggrad"]["figures"]["memory_auc"]["value"] = 0.5
    with pytest.raises(table_cells.DataError, match="add --rows"):
        table_cells.write_cell(again, cells)
    table_cells.write_cell(again, cells, rows=True)
    after = json.loads(path.read_text())
    assert after["models"]["e2urec"]["figures"]["memory_auc"]["value"] == 0.125
    assert after["models"]["e2urec"]["trials"] == before["models"]["e2urec"]["trials"]
    assert after["models"]["neggrad"]["figures"]["memory_auc"]["value"] == 0.5
    kept = after["models"]["retrain"]["figures"]
    assert kept["memory_auc"] == before["models"]["retrain"]["figures"]["memory_auc"]
    assert not any("paired_difference_test_auc" in m["figures"] for m in after["models"].values())


@pytest.mark.parametrize("change", ["settings", "original"])
def test_rows_of_other_settings_or_another_original_are_refused(cells, change):
    path = cells / "table-toy" / "seed-0" / "ratio-0.3-seed-42.json"
    before = path.read_text()
    again = json.loads(before)
    if change == "settings":
        again["models"]["neggrad"]["chosen"] = {"min_steps": 3}
    else:
        again["models"]["original"]["figures"]["utility_auc"]["value"] = 0.123
    with pytest.raises(
        table_cells.DataError, match="other settings" if change == "settings" else "is another than"
    ):
        table_cells.write_cell(again, cells, rows=True)
    assert path.read_text() == before


def test_better_is_said_only_where_every_seed_says_so_for_sure(cells):
    name = "paired_difference_memory_distance"
    paths = [cells / "table-toy" / f"seed-{seed}" / "ratio-0.3-seed-42.json" for seed in (0, 1)]

    def claim(*figures):
        for path, figure in zip(paths, figures, strict=True):
            change(path, **{f"neggrad__{name}": figure, f"retrain__{name}": figure})
        (group, _) = table_groups.read_groups(cells)
        return group

    for model in ("neggrad", "retrain"):
        for part in ("test_auc", "retained_memory"):
            for path in paths:
                change(path, **{f"{model}__paired_difference_{part}": (-0.1, 0.0, 0.1)})
    near, far, unsure = (-0.3, -0.2, -0.1), (0.1, 0.2, 0.3), (-0.3, -0.2, 0.1)
    assert claim(near, near).against_ours("neggrad") == "nearer to retraining"
    assert claim(far, far).against_ours("neggrad") == "farther from retraining"
    for figures in ((near, far), (near, unsure), (unsure, far)):
        assert claim(*figures).against_ours("neggrad") == "no difference shown"
    # Not even limits: there is nothing to go by.
    assert claim(near, (None, -0.2, None)).against_ours("neggrad") == "no difference shown"
    # An exact method leaves nothing, wherever its answers are.
    assert claim(far, far).against_ours("retrain") == "no difference shown"
    cell = json.loads(paths[0].read_text())
    cell["rows"]["forgotten_users"] = 14
    write_json(paths[0], cell)
    (group, _) = table_groups.read_groups(cells)
    assert group.against_ours("neggrad") == "no difference shown", "of too few users"


def test_page_picture_and_readme_come_from_the_cells_alone(report, cells, tmp_path):
    page, readme = report()
    rows = [line for line in page.splitlines() if line.startswith("| neggrad |")]
    # Two requests on two seeds.
    assert len(rows) == 4
    assert page.count("| retrain† |") == 4
    assert "(with scores " in page
    assert "| e2urec‡ |" in page
    assert "Not measured yet: seed 2 of every request of table-toy." in page
    assert page.count("users picked by the original of seed 0") == 2
    assert "$ e2urec compare recipes/table-toy.toml" in page
    assert "AUC" in readme
    assert "\nold\n" not in readme
    assert readme.endswith("<!-- /results -->\n\nEnd\n")
    picture = (tmp_path / "results.svg").read_bytes()
    assert picture.startswith(b"<svg")
    assert report() == (page, readme)
    assert (tmp_path / "results.svg").read_bytes() == picture
    (cells / "table-toy" / "seed-1" / "ratio-0.3-seed-42.json").unlink()
    page, _ = report()
    assert "Not measured yet: seeds 1, 2 of ratio-0.3-seed-42 of table-toy; seed 2 of " in page


def test_seconds_of_a_machine_that_did_other_work_are_called_so(report, cells):
    def retrain_in(*seconds):
        for path in cells.glob("*/seed-*/*.json"):
            cell = json.loads(path.read_text())
            names = [name for name in cell["models"] if name.startswith("retrain")]
            for number, name in enumerate(names):
                cell["models"][name]["cost"]["seconds"]["total"] = seconds[number % len(seconds)]
            write_json(path, cell)
        return report()

    page, readme = retrain_in(10.0, 12.0)
    assert "(10.0 to 12.0 s)" in page
    assert "beside other work" not in page
    assert "% |" in readme
    page, readme = retrain_in(10.0, 40.0)
    assert "(10.0 to 40.0 s) beside other work" in page
    assert "% |" not in readme


def test_page_is_left_as_it_is_where_there_is_no_cell_or_no_place(report, cells, tmp_path):
    (tmp_path / "README.md").write_text("# Head\n")
    with pytest.raises(SystemExit, match="lacks <!-- results -->"):
        report()
    (cells / "table-toy" / "seed-0" / "other.json").write_text("[]")
    with pytest.raises(SystemExit, match=r"other.json': is no file of table_cells.py; remove it"):
        report()
    with pytest.raises(SystemExit, match="has no cell yet"):
        table_report.main(["--cells", str(tmp_path / "none")])
    assert not (tmp_path / "results.md").exists()
