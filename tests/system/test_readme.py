"""The README's Python runs, on a toy model and few rows."""

import re
from pathlib import Path

import numpy as np

from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.testing import toy_backbone

README = Path(__file__).parents[2] / "README.md"


def test_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    backbone = toy_backbone("causal")
    backbone.lm.save_pretrained(tmp_path / "toy")
    backbone.tokenizer.save_pretrained(tmp_path / "toy")
    small = [
        f"model.name={tmp_path / 'toy'}",
        "model.layers=1",
        "data.rows=300",
        "data.held_rows=100",
    ]
    small += ["data.test_rows=200"]
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
    exec(compile(code, str(README), "exec"), {})
    assert "Interval(value=" in capsys.readouterr().out


def test_links_of_the_readme_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)#]+)", README.read_text(encoding="utf-8")):
        assert (README.parent / link).exists(), link
