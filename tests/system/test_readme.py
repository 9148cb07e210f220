"""The Python of the pages runs, on a toy model and few rows.

A block runs when it is marked: `<!-- runnable -->` on the line before it. The blocks of one page
run one after another, as a reader would type them.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.testing import toy_backbone

ROOT = Path(__file__).parents[2]
RUNNABLE = re.compile(r"<!-- runnable -->\n```python\n(.*?)```", re.S)


def runnable(page: Path) -> str:
    """The marked blocks of `page`, joined."""
    return "\n".join(RUNNABLE.findall(page.read_text(encoding="utf-8")))


PAGES = [
    page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if runnable(page)
]
SMALL = ["model.layers=1", "data.rows=300", "data.held_rows=100", "data.test_rows=200"]


@pytest.fixture
def small_recipes(tmp_path, monkeypatch):
    """Every recipe that a page makes is of a toy model and few rows; users.txt names two users."""
    backbone = toy_backbone("causal")
    backbone.lm.save_pretrained(tmp_path / "toy")
    backbone.tokenizer.save_pretrained(tmp_path / "toy")
    small = [f"model.name={tmp_path / 'toy'}", *SMALL]
    updated = Recipe.updated
    monkeypatch.setattr(
        Recipe, "updated", lambda recipe, settings: updated(recipe, [*settings, *small])
    )
    monkeypatch.setenv("E2UREC_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "key").write_bytes(b"controller")
    monkeypatch.chdir(tmp_path)
    train = Workspace(Recipe().updated(["data.per_user=40", "data.history=5"])).split.train
    users = [str(train.interactions.user_ids[int(code)]) for code in np.unique(train.users)[:2]]
    Path("users.txt").write_text("\n".join(users))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
@pytest.mark.usefixtures("small_recipes")
def test_python_of_the_pages_runs(page, capsys):
    exec(compile(runnable(page), str(page), "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"\d", printed), "an example prints a figure"
    assert "nan" not in printed


def test_some_page_has_python_that_runs():
    assert ROOT / "docs" / "how-to" / "python.md" in PAGES
