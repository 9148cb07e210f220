"""Requests of a comparison: single users measured as one set, and users remembered most."""

from dataclasses import replace

import numpy as np
import pytest

from e2urec.core.arrays import Head
from e2urec.core.errors import ConfigError
from e2urec.data.difficulty import control_log_odds
from e2urec.data.samples import Samples
from e2urec.evaluation.answers import Answers, EvaluationSets
from e2urec.evaluation.comparison import CellRecord
from e2urec.experiments.comparison.memorised import as_share, most_memorised
from e2urec.experiments.comparison.singles import Share, deal, gather, mean_record
from e2urec.experiments.recipe import DrawnRequest, Recipe, RequestRecipe
from e2urec.metrics.classification import auc
from e2urec.models.batches import Examples
from e2urec.models.predictions import Predictions
from e2urec.testing import toy_interactions

HEAD = Head(np.ones((3, 2), np.float32), None)


def rows(users: list[int]) -> Examples:
    count = len(users)
    return Examples(
        tokens=np.arange(count, dtype=np.int32),
        offsets=np.arange(count + 1),
        labels=np.arange(count) % 2,
        users=np.array(users),
    )


def sets() -> EvaluationSets:
    return EvaluationSets(
        test=rows([7, 7, 3, 1, 1, 5]),
        forget=rows([2, 2, 4, 6, 6, 6]),
        unseen=rows([8, 8, 8, 8]),
        valid=rows([1, 3, 5, 7]),
    )


FORGOTTEN = np.array([2, 4, 6])


def spoken(share: Share, model: int, head: Head = HEAD) -> Answers:
    """Answers that tell the model and the row."""
    parts = {}
    for name, part in vars(share.sets).items():
        if part is None:
            continue
        tokens = part.tokens
        states = np.column_stack([tokens, np.full(len(part), model)])
        parts[name] = Predictions(states, head, model * 100.0 + tokens, part.labels, part.users)
    return Answers(**parts)


def test_each_row_of_the_forget_set_is_answered_by_the_model_that_forgot_its_user():
    shares = deal(sets(), FORGOTTEN)
    pooled = gather(shares, [spoken(share, model) for model, share in enumerate(shares)])
    assert pooled.forget.log_odds.tolist() == [0, 1, 102, 203, 204, 205]
    assert (pooled.forget.users == sets().forget.users).all()
    assert (pooled.forget.labels == sets().forget.labels).all()
    assert pooled.forget.hidden is not None
    assert pooled.forget.hidden[:, 1].tolist() == [0, 0, 1, 2, 2, 2]


def test_all_other_rows_are_answered_once_and_those_of_a_user_by_one_model():
    shares = deal(sets(), FORGOTTEN)
    pooled = gather(shares, [spoken(share, model) for model, share in enumerate(shares)])
    for name in ("test", "valid", "unseen"):
        answers = getattr(pooled, name)
        tokens = answers.log_odds % 100
        assert tokens.tolist() == list(range(len(tokens)))
    models = pooled.test.log_odds // 100
    for user in np.unique(pooled.test.users):
        assert len(np.unique(models[pooled.test.users == user])) == 1
    assert set(models) == {0, 1, 2}
    # One user alone cannot be dealt out to three models by user.
    assert set(pooled.unseen.log_odds // 100) == {0, 1, 2}


def test_states_under_different_heads_are_left_out():
    shares = deal(sets(), FORGOTTEN)
    other = Head(HEAD.weight * 2, None)
    answers = [spoken(share, n, HEAD if n else other) for n, share in enumerate(shares)]
    pooled = gather(shares, answers)
    assert pooled.forget.hidden is None
    assert pooled.forget.log_odds.tolist() == [0, 1, 102, 203, 204, 205]


def test_fewer_rows_than_models_are_refused_with_a_remedy():
    few = replace(sets(), valid=rows([1, 1]))
    with pytest.raises(ConfigError, match=r"3 models share 2 valid rows.*raise data\.test_rows"):
        deal(few, FORGOTTEN)


def test_seconds_of_single_requests_are_those_of_one_in_the_mean():
    first = CellRecord(settings={"a": 1}, seconds={"total": 2.0}, rows_read={"start": 3})
    second = CellRecord(settings={"a": 1}, seconds={"total": 4.0}, phases={"joint": 6.0})
    record = mean_record([first, second])
    assert record.seconds == {"total": 3.0}
    assert record.phases == {"joint": 3.0}
    assert record.rows_read == {"start": 2}
    assert record.settings == {"a": 1}
    assert record.outcome == {}


def test_what_single_requests_were_told_is_counted():
    told = [["A bound.", "D_f has 52 rows."], ["A bound.", "D_f has 7 rows."], []]
    records = [CellRecord(outcome={"is_done": False, "sentences": each}) for each in told]
    counts = {"A bound.": 2, "D_f has … rows.": 2}
    assert mean_record([*records, CellRecord()]).outcome == {"requests_by_sentence": counts}


# --- whom a request names


def train() -> Samples:
    data = toy_interactions(users=12)
    return Samples(data, np.flatnonzero(np.arange(len(data)) - data.first_rows >= 3), 3)


def test_users_whose_answers_the_original_knows_best_beyond_an_outsider_are_picked():
    samples = train()
    remembered = np.array([2, 5, 9])
    sign = np.where(samples.labels == 1, 1.0, -1.0)
    outsider = 0.3 * sign
    # Users 3 and 4 are easy for anybody, and no more remembered than others.
    outsider[np.isin(samples.users, [3, 4])] *= 10
    original = outsider + np.isin(samples.users, remembered) * sign
    assert most_memorised(samples, original, outsider, 0.25).tolist() == remembered.tolist()


def test_user_of_a_single_row_is_not_picked_by_chance():
    samples = train()
    sign = np.where(samples.labels == 1, 1.0, -1.0)
    first_of_user_0 = np.flatnonzero(samples.users == 0)[:1]
    others = np.flatnonzero(samples.users != 0)
    samples = samples.take(np.concatenate([first_of_user_0, others]))
    sign = np.where(samples.labels == 1, 1.0, -1.0)
    outsider = np.zeros(len(samples))
    original = sign * np.where(samples.users == 0, 1.2, np.where(samples.users == 1, 1.0, 0.0))
    assert most_memorised(samples, original, outsider, 0.01).tolist() == [1]


def test_a_number_of_single_users_is_drawn_as_their_share():
    samples = train()
    share = as_share(DrawnRequest(singles=5), samples)
    assert round(share.ratio * 12) == 5
    plain = RequestRecipe(ratio=0.3)
    assert as_share(plain, samples) is plain
    with pytest.raises(ConfigError, match="singles = 12 of 12"):
        as_share(DrawnRequest(singles=12), samples)


@pytest.mark.parametrize("setting", ["singles=3", "pick='most memorised'"])
def test_only_users_are_picked_or_erased_one_by_one(setting):
    with pytest.raises(ConfigError, match="set unit = 'users'"):
        Recipe().updated([f"compare.requests=[{{unit='items', {setting}}}]"])


def test_number_of_single_users_and_a_share_of_them_are_refused_together():
    with pytest.raises(ConfigError, match=r"singles = 3 and ratio = 0\.5 both say how many"):
        Recipe().updated(["compare.requests=[{singles=3, ratio=0.5}]"])
    # Written out and read again, a request of single users has the default share beside it.
    recipe = Recipe().updated(["compare.requests=[{singles=3}]"])
    assert Recipe.build(recipe.model_dump(), place="again") == recipe


def test_words_for_a_request_tell_a_share_below_one_percent():
    assert DrawnRequest(ratio=0.002).in_words() == "0.2% of the users"
    assert DrawnRequest(ratio=0.05, pick="most memorised").in_words() == (
        "the 5% most memorised users"
    )


# --- what a cheap recommender reaches


def test_control_sees_rows_that_a_prompt_does_not_show():
    samples = train()
    later = samples.take(np.flatnonzero(samples.rows - samples.starts == 3)[-30:])
    data = samples.interactions
    odds = control_log_odds(samples, later, seed=0)
    # Turn a rating that only a longer history than three rows can know of.
    row = later.rows[-1]
    rating = data.rating.copy()
    rating[row - 6] = 1 if data.liked[row - 6] else 5
    changed = replace(later, interactions=replace(data, rating=rating))
    assert control_log_odds(samples, changed, seed=0)[-1] != odds[-1]


def test_control_tells_liked_from_disliked_where_users_and_items_differ():
    data = toy_interactions(users=40, rows=30)
    random = np.random.default_rng(0)
    taste = random.normal(size=40)[data.user] + random.normal(size=len(data.titles))[data.item]
    liked = taste + random.normal(size=len(data)) > 0
    data = replace(data, rating=np.where(liked, 5, 1).astype(np.float32))
    place = np.arange(len(data)) - data.first_rows
    samples = Samples(data, np.flatnonzero((place >= 3) & (place < 22)), 3)
    test = Samples(data, np.flatnonzero(place >= 22), 3)
    assert auc(test.labels, control_log_odds(samples, test, seed=0)) > 0.75
