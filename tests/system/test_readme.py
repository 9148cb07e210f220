"""The Python of the pages runs, on a toy model and few rows.

A block runs when it is marked on the line before it. `<!-- runnable -->`: the blocks of one page
run one after another, as a reader would type them. `<!-- file: NAME -->`: the block is a file; it
is put where a reader would put it, and the tests among these files are run.
"""

import importlib
import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from e2urec import methods
from e2urec.data import sources
from e2urec.evaluation import measures
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from key_files import write_key

ROOT = Path(__file__).parents[2]
RUNNABLE = re.compile(r"<!-- runnable -->\n```python\n(.*?)```", re.S)
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.S)
EXTEND = ROOT / "docs" / "how-to" / "extend.md"
FOLDERS = {"methods": methods, "data/sources": sources, "evaluation/measures": measures}
"""Folders of the package in which a file is found by being there."""


def runnable(page: Path) -> str:
    """The marked blocks of `page`, joined."""
    return "\n".join(RUNNABLE.findall(page.read_text(encoding="utf-8")))


PAGES = [
    page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if runnable(page)
]
FILES = dict(FILE.findall(EXTEND.read_text(encoding="utf-8")))
SMALL = ["model.layers=1", "data.rows=150", "data.held_rows=60", "data.test_rows=80"]


@pytest.fixture
def small_recipes(toy, tmp_path, monkeypatch):
    """Every recipe that a page makes is of a toy model and few rows; users.txt names two users."""
    small = [f"model.name={toy}", *SMALL]
    updated = Recipe.updated
    monkeypatch.setattr(
        Recipe, "updated", lambda recipe, settings: updated(recipe, [*settings, *small])
    )
    monkeypatch.setenv("E2UREC_KEY_FILE", str(write_key(tmp_path / "key")))
    monkeypatch.chdir(tmp_path)
    train = Workspace(Recipe().updated(["data.per_user=40", "data.history=5"])).split.train
    users = [str(train.interactions.user_ids[int(code)]) for code in np.unique(train.users)[:2]]
    Path("users.txt").write_text("\n".join(users))


@pytest.fixture
def files_of_the_page(tmp_path, monkeypatch):
    """Put the files of the page into their folders, so to say; they are gone again afterwards."""
    before = set(sys.modules)
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for folder, package in FOLDERS.items():
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / folder)])
    monkeypatch.syspath_prepend(tmp_path)
    measures.all_measures.cache_clear()
    yield
    measures.all_measures.cache_clear()
    stems = {Path(name).stem for name in FILES}
    for module in set(sys.modules) - before:
        if module.rpartition(".")[2] in stems:
            del sys.modules[module]
    for package in FOLDERS.values():
        for stem in stems:
            vars(package).pop(stem, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
@pytest.mark.usefixtures("small_recipes")
def test_python_of_the_pages_runs(page, capsys):
    exec(compile(runnable(page), str(page), "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"\d", printed), "an example prints a figure"
    assert "nan" not in printed


def test_some_page_has_python_that_runs():
    assert ROOT / "docs" / "how-to" / "python.md" in PAGES


def test_page_about_extending_has_an_example_and_a_test_for_each_folder():
    folders = [name.rpartition("/")[0] for name in FILES if "/" in name]
    assert folders == list(FOLDERS)
    for name in FILES:
        if "/" in name:
            assert f"test_{Path(name).name}" in FILES


@pytest.mark.parametrize("name", [name for name in FILES if "/" not in name])
@pytest.mark.usefixtures("files_of_the_page")
def test_example_of_the_page_about_extending_passes_its_own_test(name, tmp_path):
    module = importlib.import_module(Path(name).stem)
    tests = [value for key, value in vars(module).items() if key.startswith("test_")]
    assert tests
    for test in tests:
        folder = tmp_path / "raw"
        folder.mkdir()
        # `tmp_path` is the only fixture that the examples use.
        values = {"tmp_path": folder} if "tmp_path" in inspect.signature(test).parameters else {}
        test(**values)
