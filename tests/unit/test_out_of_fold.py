"""Out-of-fold scores: who makes them, for which rows, and how they are found again."""

import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from e2urec.core.errors import ConfigError, RunError, ScoresError
from e2urec.core.seeding import derive
from e2urec.data.prompts import TEMPLATES
from e2urec.data.requests import ErasureRequest, resolve
from e2urec.data.samples import Samples
from e2urec.data.splits import Split, SplitSettings, split
from e2urec.models import adapters
from e2urec.models.adapters import LoRA
from e2urec.models.predictions import predict
from e2urec.models.recommender import Recommender
from e2urec.runs.row_digests import RowKey
from e2urec.runs.score_index import FILE, ScoreIndex
from e2urec.testing import TUNING, toy_interactions, toy_recommender
from e2urec.training.costs import Costs
from e2urec.training.half_models import HalfModels
from e2urec.training.loop import silent
from e2urec.training.out_of_fold import PHASE, OutOfFold, RowScores, halves, outside_scores
from e2urec.training.phase import Phase
from e2urec.training.supervised import Tuning, tune
from key_files import KEY, OTHER_KEY

TWO_PAIRS = OutOfFold(pairs=2)
ADAPTERS = OutOfFold(pairs=2, tuning="adapter")
COMPACT = TEMPLATES["compact"]


def parts() -> Split:
    settings = SplitSettings(history=3, unseen=0.1, calibration=0.1)
    return split(toy_interactions(), settings, seed=1)


def half_models(base: Recommender, settings: OutOfFold = TWO_PAIRS, progress=silent) -> HalfModels:
    return HalfModels(base, settings, TUNING, seed=3, costs=Costs(), progress=progress)


def rows_of(base: Recommender) -> tuple:
    rows = parts()
    outsiders = {name: base.encode(getattr(rows, name)) for name in ("calibration", "unseen")}
    return base.encode(rows.train), outsiders


def test_scores_are_mean_and_spread_over_the_models_that_did_not_see_a_row():
    seen = float("nan")
    log_odds = np.array([[1.0, seen], [seen, 2.0], [4.0, seen], [seen, 2.5]])
    scores = outside_scores(log_odds, ~np.isnan(log_odds))
    assert scores.mean.tolist() == [2.5, 2.25]
    assert scores.spread == pytest.approx([np.std([1, 4], ddof=1), np.std([2, 2.5], ddof=1)])
    alone = outside_scores(log_odds[:2], ~np.isnan(log_odds[:2]))
    assert alone.mean.tolist() == [1.0, 2.0]
    assert np.isnan(alone.spread).all()


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_no_half_model_that_saw_a_user_answers_her_rows(kind):
    base = toy_recommender(kind)
    train, outsiders = rows_of(base)
    # Whatever she says, her own scores stay: nobody who learnt it is asked about her.
    user = train.users[0]
    is_hers = train.users == user
    poisoned = replace(train, labels=np.where(is_hers, 1 - train.labels, train.labels))
    before = half_models(base).scores(train, outsiders)
    after = half_models(base).scores(poisoned, outsiders)
    same = before["train"].mean == after["train"].mean
    assert same[is_hers].all()
    # Of each pair one model learnt from her; a row is untouched only if neither that was asked did.
    users = np.concatenate([train.users, *(part.users for part in outsiders.values())])
    inside = halves(users, 4, seed=3)[:, : len(train)]
    her_models = inside[:, is_hers][:, 0]
    touched = (~inside & her_models[:, None]).any(0)
    assert touched.any()
    assert (same == ~touched).all()


def test_scores_depend_on_the_seed_and_on_nothing_else():
    base = toy_recommender("causal")
    train, outsiders = rows_of(base)
    first = half_models(base).scores(train, outsiders)
    torch.manual_seed(99)
    again = half_models(base).scores(train, outsiders)
    other = replace(half_models(base), seed=4).scores(train, outsiders)
    for name in first:
        assert np.array_equal(first[name].mean, again[name].mean)
        assert np.array_equal(first[name].spread, again[name].spread)
    assert not np.array_equal(first["train"].mean, other["train"].mean)


class Stop:
    """Interrupts the third step."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, *progress: object) -> None:
        self.steps += 1
        if self.steps == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("settings", [TWO_PAIRS, ADAPTERS])
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_base_is_left_as_it_was_after_an_interrupt_too(is_interrupted, settings):
    base = toy_recommender("causal")
    lm = base.lm.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    train, outsiders = rows_of(base)
    if is_interrupted:
        with pytest.raises(KeyboardInterrupt):
            half_models(base, settings, progress=Stop()).scores(train, outsiders)
    else:
        half_models(base, settings).scores(train, outsiders)
    assert base.lm is lm
    assert adapters.names(base.lm) == []
    after = base.lm.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.training for module in lm.modules())
    assert not any(parameter.requires_grad for parameter in lm.parameters())


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_cached_lower_blocks_give_the_scores_of_those_computed_anew(kind):
    base = toy_recommender(kind)
    train, outsiders = rows_of(base)
    cached = half_models(base, ADAPTERS).scores(train, outsiders)
    uncached = ADAPTERS.model_copy(update={"cache_gb": 0})
    anew = half_models(base, uncached).scores(train, outsiders)
    for name in cached:
        assert cached[name].mean == pytest.approx(anew[name].mean, abs=1e-4)
        assert cached[name].spread == pytest.approx(anew[name].spread, abs=1e-4)
    # Something was learnt, so that the two could differ.
    assert np.abs(cached["train"].mean - cached["train"].mean.mean()).max() > 0.01


def test_cache_with_room_for_some_rows_gives_the_same_scores_and_says_so(tmp_path):
    base = toy_recommender("causal")
    train, outsiders = rows_of(base)
    width = base.lm.config.hidden_size
    # Half of the training rows, which come first: no outsider finds room.
    room = int(train.lengths[: len(train) // 2].sum()) * width * 4
    settings = OutOfFold(pairs=2, tuning="adapter", cache_gb=room / 1e9)
    row_count = len(train) + sum(map(len, outsiders.values()))
    with pytest.warns(UserWarning, match=rf"scores.cache_gb: .*{len(train) // 2} of {row_count} "):
        partial = replace(half_models(base, settings), scratch=tmp_path).scores(train, outsiders)
    uncached = settings.model_copy(update={"cache_gb": 0})
    anew = half_models(base, uncached).scores(train, outsiders)
    for name in anew:
        assert partial[name].mean == pytest.approx(anew[name].mean, abs=1e-4)
    assert not list(tmp_path.iterdir())


def test_cache_lies_in_the_scratch_folder(tmp_path, monkeypatch):
    folders = []
    temporary_file = tempfile.TemporaryFile

    def record(**options):
        folders.append(options["dir"])
        return temporary_file(**options)

    monkeypatch.setattr(tempfile, "TemporaryFile", record)
    base = toy_recommender("causal")
    replace(half_models(base, ADAPTERS), scratch=tmp_path).scores(*rows_of(base))
    assert folders == [tmp_path]


def test_half_without_a_training_row_is_told_before_anything_is_tuned():
    base = toy_recommender("causal")
    train, outsiders = rows_of(base)
    of_one_user = train.take(np.flatnonzero(train.users == train.users[0]))
    with pytest.raises(ScoresError, match=r"half of the users have no .*scores\.pairs=0"):
        half_models(base, progress=None).scores(of_one_user, outsiders)


def test_half_model_that_diverges_is_named_with_the_remedy():
    base = toy_recommender("causal")
    rate = 1e30
    settings = OutOfFold(pairs=1, tuning="adapter", learning_rate=rate, cache_gb=0)
    with pytest.raises(
        ConfigError, match=r"half model 1 of 2 diverged .* lower scores\.learning_r"
    ):
        half_models(base, settings).scores(*rows_of(base))
    assert adapters.names(base.lm) == []


def test_half_models_are_tuned_as_the_original_is():
    base = toy_recommender("causal")
    train, outsiders = rows_of(base)
    users = np.concatenate([train.users, *(part.users for part in outsiders.values())])
    inside = halves(users, 2, seed=3)[0, : len(train)]
    scores = half_models(base, OutOfFold(pairs=1)).scores(train, outsiders)["train"].mean
    phase = Phase(PHASE, derive(3, PHASE, 0))
    model, _ = tune(base, TUNING, train.take(np.flatnonzero(inside)), None, phase)
    expected = predict(model, train.take(np.flatnonzero(~inside))).log_odds
    assert scores[~inside] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)], ids=["full", "lora"])
def test_half_models_stop_early_where_the_original_did(lora):
    base = toy_recommender("causal")
    train, outsiders = rows_of(base)
    # So fast that validation rows are soon answered worse than before.
    changes = {"epochs": 9, "learning_rate": 0.1, "patience": 1}
    schedule = TUNING.schedule.model_copy(update=changes)
    patient = Tuning(schedule=schedule, lora=lora)
    models = replace(half_models(base), original=patient, valid=outsiders["unseen"])
    models.scores(train, outsiders)
    answers = 2 * len(train) + 2 * sum(len(part) for part in outsiders.values())
    assert models.costs.rows[PHASE] < 2 * 9 * len(train) + answers


def test_half_models_of_an_original_with_an_adapter_have_one_like_it(monkeypatch):
    tuned = []
    attach = adapters.attach

    def record(lm, name, lora, *, seed):
        tuned.append(lora)
        return attach(lm, name, lora, seed=seed)

    monkeypatch.setattr(adapters, "attach", record)
    base = toy_recommender("causal")
    lora = LoRA(rank=4, upper=0.5)
    original = TUNING.model_copy(update={"lora": lora})
    replace(half_models(base), original=original).scores(*rows_of(base))
    assert tuned == [lora] * 4


def test_settings_of_an_adapter_that_is_not_tuned_are_refused():
    with pytest.raises(ValidationError, match=r"scores.learning_rate .* scores.tuning = 'adapter'"):
        OutOfFold(pairs=1, tuning="original", learning_rate=1e-3)
    # Records of runs that had nothing else name the adapter's settings alone.
    earlier = {"pairs": 1, "learning_rate": 1e-3, "lora": LoRA(rank=4).model_dump()}
    assert OutOfFold(**earlier).tuning == "adapter"


def test_rows_that_are_read_are_as_many_as_were_announced():
    base = toy_recommender("causal")
    train, outsiders = rows_of(base)
    makers = half_models(base)
    makers.scores(train, outsiders)
    outside_count = sum(map(len, outsiders.values()))
    announced = TWO_PAIRS.row_count(len(train), outside_count, TUNING.schedule.epochs)
    assert makers.costs.rows[PHASE] == announced
    assert makers.costs.seconds[PHASE] > 0


def test_data_without_calibration_users_have_scores_for_all_others():
    base = toy_recommender("causal")
    train, outsiders = rows_of(base)
    empty = outsiders["unseen"].take(np.arange(0))
    scores = half_models(base).scores(train, {"calibration": empty, "unseen": outsiders["unseen"]})
    assert len(scores["calibration"].mean) == 0
    assert np.isfinite(scores["train"].mean).all()
    assert np.isfinite(scores["unseen"].mean).all()


# --- the index of a run


def numbered() -> tuple[Split, ScoreIndex]:
    """The row's number as its mean, and half of it as its spread."""
    rows = parts()
    scores = {}
    for name in ("train", "calibration", "unseen"):
        numbers = getattr(rows, name).rows.astype(np.float32)
        scores[name] = RowScores(numbers, numbers / 2)
    return rows, ScoreIndex.of(rows, scores, COMPACT, RowKey.under(KEY))


def test_each_row_finds_its_own_score_in_any_order():
    rows, index = numbered()
    order = np.random.default_rng(0).permutation(len(rows.train))
    found = index.scores_of(rows.train.take(order), COMPACT)
    assert found.mean.tolist() == rows.train.rows[order].tolist()
    assert found.spread.tolist() == (rows.train.rows[order] / 2).tolist()
    assert (
        index.scores_of(rows.calibration, COMPACT).mean.tolist() == rows.calibration.rows.tolist()
    )
    assert len(index.scores_of(rows.train.take(np.arange(0)), COMPACT).mean) == 0


def test_rows_without_a_score_have_nan_among_those_that_have_one():
    rows, index = numbered()
    samples = Samples(
        rows.train.interactions, np.array([rows.test.rows[0], rows.train.rows[3]]), history=3
    )
    scores = index.scores_of(samples, COMPACT)
    assert scores.present.tolist() == [False, True]
    assert np.isnan([scores.mean[0], scores.spread[0]]).all()
    assert [scores.mean[1], scores.spread[1]] == [rows.train.rows[3], rows.train.rows[3] / 2]


@pytest.mark.parametrize("unit", ["users", "interactions", "items"])
def test_erased_rows_and_prompts_that_showed_one_take_their_scores_along(unit):
    rows, index = numbered()
    data = rows.train.interactions
    request = resolve(ErasureRequest.draw(rows.train, 0.1, 3, unit), rows)
    remaining = index.without(data, request.changed)
    assert not remaining.scores_of(request.forget, COMPACT).present.any()
    # By hand: a prompt shows up to three rows of its target's user, just before the target.
    stay = []
    for part in (rows.train, rows.calibration, rows.unseen):
        for row in part.rows:
            shown = [k for k in range(max(0, row - 3), row + 1) if data.user[k] == data.user[row]]
            if not request.erased[shown].any():
                stay.append(float(row))
    assert 0 < len(stay) < len(index)
    assert sorted(remaining.scores.mean.tolist()) == sorted(stay)
    # Codes and row numbers of D_r are new ones; its scores are found all the same.
    old_rows = rows.train.rows[~request.erased[rows.train.rows]]
    expected = np.where(np.isin(old_rows, stay), old_rows, np.nan)
    assert np.array_equal(
        remaining.scores_of(request.retain, COMPACT).mean, expected, equal_nan=True
    )
    assert np.isnan(expected).any() == (unit != "users")


def test_prompts_with_another_title_of_an_item_have_no_score():
    rows, index = numbered()
    request = resolve(ErasureRequest.draw(rows.train, 0.3, 3, "users"), rows)
    texts = ["".join(COMPACT.render(part)) for part in (request.forget, request.calibration)]
    titles = rows.train.interactions.titles
    title = next(title for title in titles if all(title in text for text in texts))
    assert index.of_request(request, COMPACT, 2).stale == 0
    stale_count = 0
    parts = {}
    for name in ("forget", "calibration"):
        part = getattr(request, name)
        data = part.interactions
        renamed = [text.replace(title, "Another title") for text in data.titles]
        parts[name] = replace(part, interactions=replace(data, titles=renamed))
        is_shown = [title in text for text in COMPACT.render(part)]
        assert 0 < sum(is_shown) < len(part)
        stale_count += sum(is_shown)
        scores = index.scores_of(parts[name], COMPACT)
        assert (~scores.present).tolist() == is_shown
        assert np.isnan(scores.spread).tolist() == is_shown
    scores = index.of_request(replace(request, **parts), COMPACT, 2)
    assert scores.stale == stale_count
    assert scores.stale_sentence().startswith(f"{stale_count} rows have other prompts than those")


def test_scores_are_found_under_another_key_as_before():
    rows, index = numbered()
    data = rows.train.interactions
    again = index.under(RowKey.random(), data)
    assert not np.isin(again.digests, index.digests).any()
    assert (np.diff(again.digests.astype(float)) >= 0).all()
    for part in (rows.train, rows.calibration, rows.unseen):
        assert again.scores_of(part, COMPACT).mean.tolist() == part.rows.tolist()
        assert again.scores_of(part, COMPACT).spread.tolist() == (part.rows / 2).tolist()


def test_scores_are_read_as_they_were_written_and_none_are_none(tmp_path):
    _, index = numbered()
    assert ScoreIndex.load(tmp_path, KEY) is None
    index.save(tmp_path)
    again = ScoreIndex.load(tmp_path, KEY)
    assert again.key == index.key
    assert np.array_equal(again.digests, index.digests)
    assert again.scores.mean.dtype == np.float32
    assert np.array_equal(again.scores.mean, index.scores.mean)
    assert np.array_equal(again.scores.spread, index.scores.spread)
    with pytest.raises(RunError, match=r"under another key; give that one with --key-file"):
        ScoreIndex.load(tmp_path, OTHER_KEY)


def test_damaged_scores_are_refused_in_one_line_with_a_remedy(tmp_path):
    _, index = numbered()
    index.save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no arrays"):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(
            RunError, match="is damaged; restore it, or make the scores anew"
        ) as told:
            ScoreIndex.load(tmp_path, KEY)
        assert "\n" not in str(told.value)
    index.save(tmp_path)
    with np.load(tmp_path / FILE) as archive:
        columns = dict(archive)
    np.savez(tmp_path / FILE, **columns | {"digests": index.digests[1:]})
    with pytest.raises(RunError, match="is damaged"):
        ScoreIndex.load(tmp_path, KEY)


def test_files_of_the_same_scores_have_no_number_in_common(tmp_path):
    _, index = numbered()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        index.save(tmp_path / name)
    files = []
    for name in ("a", "b"):
        with np.load(tmp_path / name / FILE) as archive:
            files.append(archive["scores"].tobytes())
    mean = index.scores.mean
    for number in np.unique(mean[np.isfinite(mean) & (mean != 0)]):
        assert not any(number.tobytes() in content for content in files)
    assert files[0] != files[1]
