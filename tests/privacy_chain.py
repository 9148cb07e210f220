"""An original and two requests, of which the folders are probed for what they tell."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from e2urec.api.evaluate import EvaluationOptions, evaluate
from e2urec.api.request import RequestCase, RequestOptions
from e2urec.api.stale_shadows import SHADOWS
from e2urec.api.train import train
from e2urec.api.unlearn import unlearn
from e2urec.data.interactions import Interactions
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.runs.folder import Run
from e2urec.testing import toy_tables
from e2urec.training.loop import silent
from privacy_probes import Folder
from toy_data import quick_settings, write_table

QUICK = build("neggrad", {"min_steps": 2})


@dataclass(frozen=True)
class Chain:
    """An original, two requests for a training user each, and what was said."""

    original: Run
    first: Run
    second: Run
    data: Interactions
    erased: list[str]
    retained: str
    prompts: list[str]
    shadow_folders: list[str]
    sentences: list[str]

    def rows_of(self, user: str) -> list[int]:
        names = self.data.user_ids.cast(pl.String).to_list()
        return np.flatnonzero(self.data.user == names.index(user)).tolist()


def make_chain(folder: Path, toy: Path) -> Chain:
    """Train, erase a user, evaluate with shadow models, and erase another user."""
    ratings, items = toy_tables(users=24)
    # Each user rated an item once, so that a user and an item name one row.
    ratings = ratings.unique(("user", "item"), keep="first", maintain_order=True)
    ratings = ratings.with_columns(user=pl.format("customer-{}", "user"))
    source = write_table(folder, ratings, items)
    settings = [*quick_settings(source, toy), "data.unseen=0.2", "scores.pairs=1"]
    recipe = Recipe.build({}, place="test").updated(settings)
    original = train(recipe, folder / "original")
    split = Workspace(recipe).split
    data = split.train.interactions
    users = [str(data.user_ids[int(code)]) for code in np.unique(split.train.users)[:3]]
    sentences: list[str] = []
    requests = []
    for number, user in enumerate(users[:2]):
        file = folder / f"{number}.txt"
        file.write_text(user)
        requests.append(RequestOptions(file=file, say=sentences.append))
    case = RequestCase.open(original, requests[0], silent)
    prompts = case.space.template.render(case.parts.forget)
    first = unlearn(original, folder / "first", QUICK, requests[0])
    evaluate(first, request=requests[0], options=EvaluationOptions(shadows=2))
    shadow_folders = [path.name for path in (first.path / SHADOWS).iterdir()]
    assert Folder.of(first.path).mentions(shadow_folders[0])
    second = unlearn(first, folder / "second", QUICK, requests[1])
    return Chain(
        original, first, second, data, users[:2], users[2], prompts, shadow_folders, sentences
    )
