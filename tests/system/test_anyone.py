"""Anybody is erased when she asks: trained on, held out, or only ever shown."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from e2urec.api.evaluate import evaluate
from e2urec.api.request import UNCHANGED, RequestOptions
from e2urec.api.train import train
from e2urec.api.unlearn import dry_run, unlearn
from e2urec.core.errors import DataError, RunError
from e2urec.data.splits import Split
from e2urec.experiments.demo import demo
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.runs.copying import is_of_model
from e2urec.runs.folder import Run
from e2urec.runs.row_digests import row_digests
from e2urec.runs.split_index import SplitIndex
from key_files import KEY
from toy_data import quick_settings, write_ratings

QUICK = build("neggrad", {"min_steps": 2})
HELD_OUT = ("unseen", "calibration", "valid", "test", "histories of unseen users")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("data"), once=True)


@pytest.fixture
def all_rows(source: Path) -> Iterator[pl.DataFrame]:
    """The rows of the source, which are there again afterwards."""
    text = source.read_bytes()
    yield pl.read_csv(source)
    source.write_bytes(text)


@pytest.fixture(scope="module")
def original(toy: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = [*quick_settings(source, toy), "scores.pairs=1"]
    recipe = Recipe.build({}, place="test").updated(settings)
    return train(recipe, tmp_path_factory.mktemp("runs") / "original")


def split_of(run: Run) -> Split:
    space = Workspace(
        Recipe.build(run.record.recipe, place="run"), split_index=SplitIndex.load(run.path, KEY)
    )
    return space.split


def held_out_rows(split: Split, part: str) -> list[int]:
    """Rows that no training prompt shows, as a user or as single interactions would name them."""
    if part == "histories of unseen users":
        targets = np.concatenate([samples.rows for samples in vars(split).values()])
        shown = np.setdiff1d(np.flatnonzero(split.unseen.visible_rows()), targets)
        return shown[:2].tolist()
    if part in ("valid", "test"):
        return getattr(split, part).rows[:2].tolist()
    samples = getattr(split, part)
    data = samples.interactions
    return np.flatnonzero(data.user == samples.users[0]).tolist()


def request_for(split: Split, rows: list[int], file: Path) -> tuple[Path, set[tuple[str, str]]]:
    """A request for single rows, and the user and item of each."""
    data = split.train.interactions
    pairs = {
        (str(data.user_ids[int(data.user[n])]), str(data.item_ids[int(data.item[n])])) for n in rows
    }
    file.write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in pairs))
    return file, pairs


def delete(all_rows: pl.DataFrame, pairs: set[tuple[str, str]], source: Path) -> None:
    """Take rows out of the data, as their owner will."""
    named = pl.struct(pl.col("user"), pl.col("item").cast(pl.String))
    stays = [tuple(row.values()) not in pairs for row in all_rows.select(named).to_series()]
    assert 0 < len(stays) - sum(stays) == len(pairs)
    all_rows.filter(pl.Series(stays)).write_csv(source)


def files_of_model(run: Run) -> dict[str, bytes]:
    return {name: (run.path / name).read_bytes() for name in run.record.files if is_of_model(name)}


@pytest.mark.parametrize("part", HELD_OUT)
def test_rows_that_were_held_out_leave_all_files_and_the_model_is_that_of_before(
    original, source, all_rows, tmp_path, part
):
    split = split_of(original)
    rows = held_out_rows(split, part)
    file, pairs = request_for(split, rows, tmp_path / "request.csv")
    options = RequestOptions(file=file)
    plan = dry_run(original, QUICK, options)
    assert (plan.rows["forget"], plan.rows["removed"], plan.phases) == (0, len(rows), {})

    child = unlearn(original, tmp_path / "u", QUICK, options)
    assert child.record.note == UNCHANGED
    assert files_of_model(child) == files_of_model(original) != {}
    index = SplitIndex.load(child.path, KEY)
    data = split.train.interactions
    gone = row_digests(data, index.key, np.array(rows))
    assert not np.isin(gone, index.digests).any()
    assert len(index.digests) == len(data) - len(rows)

    # Their owner deletes them now, and others ask in turn.
    delete(all_rows, pairs, source)
    later = split_of(child)
    for name, samples in vars(later).items():
        stay = np.setdiff1d(getattr(split, name).rows, rows)
        assert len(samples) == len(stay)
    grandchild = unlearn(child, tmp_path / "u2", QUICK, RequestOptions(ratio=0.1, seed=3))
    assert grandchild.record.note is None
    assert len(grandchild.record.chain) == 2
    with pytest.raises(DataError, match="are not in the recommender's data"):
        unlearn(grandchild, tmp_path / "u3", QUICK, options)


def test_calibration_rows_that_left_serve_no_target_and_have_no_score(original, tmp_path):
    split = split_of(original)
    rows = held_out_rows(split, "calibration")
    file, _ = request_for(split, rows, tmp_path / "request.csv")
    child = unlearn(original, tmp_path / "u", QUICK, RequestOptions(file=file))
    gone = np.isin(split.calibration.rows, rows).sum()
    assert 0 < gone < len(split.calibration)
    assert len(split_of(child).calibration) == len(split.calibration) - gone
    assert child.record.rows["scores"] == original.record.rows["scores"] - gone


def test_of_a_mixed_request_the_training_rows_are_d_f_and_all_rows_leave(original, tmp_path):
    split = split_of(original)
    data = split.train.interactions
    users = [split.train.users[0], split.unseen.users[0], split.calibration.users[0]]
    names = [str(data.user_ids[int(code)]) for code in users]
    (tmp_path / "users.txt").write_text("\n".join(names))
    child = unlearn(original, tmp_path / "u", QUICK, RequestOptions(file=tmp_path / "users.txt"))
    counts = json.loads((child.path / "results.json").read_text())["rows"]
    assert counts["forget"] == (split.train.users == users[0]).sum()
    assert counts["removed"] == np.isin(data.user, users).sum()
    assert counts["removed_users"] == 3
    assert child.record.note is None
    later = split_of(child)
    assert len(later.unseen) == (split.unseen.users != users[1]).sum()
    assert len(later.calibration) == (split.calibration.users != users[2]).sum()


@pytest.mark.parametrize("part", ["unseen", "calibration", "test"])
def test_everybody_who_was_held_out_may_leave(original, tmp_path, part):
    split = split_of(original)
    rows = getattr(split, part).rows.tolist()
    file, _ = request_for(split, rows, tmp_path / "request.csv")
    child = unlearn(original, tmp_path / "u", QUICK, RequestOptions(file=file))
    assert len(getattr(split_of(child), part)) == 0


def test_user_is_told_that_nothing_was_unlearned_and_why_nothing_can_be_measured(
    call, original, tmp_path
):
    split = split_of(original)
    file, _ = request_for(split, held_out_rows(split, "unseen"), tmp_path / "request.csv")
    status, out, error = call("unlearn", original.path, "--request", file, "--dry-run")
    assert (status, UNCHANGED in out) == (0, True), error
    words = ("unlearn", original.path, "--request", file, "--out", tmp_path / "u")
    status, out, error = call(*words)
    assert (status, out.count(UNCHANGED)) == (0, 1), error
    assert UNCHANGED in call("show", tmp_path / "u")[1]
    status, out, error = call("evaluate", tmp_path / "u", "--request", file)
    assert (status, out) == (2, "")
    assert f"{UNCHANGED}, so there is nothing to measure" in error


def test_what_no_row_is_of_is_refused_and_a_demo_needs_a_training_row(original, tmp_path):
    (tmp_path / "nobody.txt").write_text("nobody-of-that-name\n")
    nobody = RequestOptions(file=tmp_path / "nobody.txt")
    with pytest.raises(DataError, match="1 of 1 users are not in the recommender's data"):
        dry_run(original, QUICK, nobody)
    skipping = RequestOptions(file=tmp_path / "nobody.txt", skip_unknown=True)
    with pytest.raises(DataError, match="nothing that it names is in the recommender's data"):
        dry_run(original, QUICK, skipping)
    split = split_of(original)
    file, _ = request_for(split, held_out_rows(split, "unseen"), tmp_path / "request.csv")
    with pytest.raises(DataError, match="concerns no training row"):
        demo(Recipe.build(original.record.recipe, place="run"), tmp_path / "d", request=file)
    with pytest.raises(RunError, match="is no unlearned run"):
        evaluate(original, request=RequestOptions(file=file))
