"""What every method owes: it is found here by itself, built in or registered by another package."""

import itertools
import sys
import warnings
from importlib import metadata

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet

from e2urec import methods
from e2urec.core.errors import ConfigError
from e2urec.methods import all_methods, build
from e2urec.methods.e2urec import E2URec
from e2urec.models.adapters import LoRA, names
from e2urec.models.predictions import predict
from e2urec.models.recommender import Recommender
from e2urec.testing import (
    check_reproducible,
    check_settings,
    check_unlearning,
    toy_task,
    toy_task_for,
)
from e2urec.training.loop import Schedule
from e2urec.training.supervised import supervised
from e2urec.unlearning.method import Method
from e2urec.unlearning.student import Student

KINDS = ["causal", "seq2seq"]
SHARDS = {"shards": 2, "learning_rate": 1e-2, "lora": {"rank": 2, "targets": "all"}}
QUICK = {
    "e2urec": {
        **E2URec.presets["gain"],
        "warmup": 1,
        "joint": 1,
        "final": 1,
        "lora": {"rank": 2, "targets": "all", "upper": 0.5},
    },
    "ifru": {"rows": 16, "iterations": 3, "batch_size": 16},
    "sisa": SHARDS,
    "receraser": SHARDS,
    "apa": SHARDS,
}


def unlearnings() -> list[ParameterSet]:
    """Every method with each kind of model and each kind of original, each of them once.

    `make families` runs the other pairs as well. A method that prepares an original of its own
    tunes adapters on the base, however the task's original was tuned: it has no other pairs.
    """
    found = []
    for name, method in all_methods().items():
        for kind, lora in itertools.product(KINDS, (False, True)):
            is_ordinary = lora == (kind == "seq2seq")
            if is_ordinary or not method.prepares:
                marks = () if is_ordinary else pytest.mark.families
                tuning = "lora" if lora else "full"
                found.append(
                    pytest.param(name, kind, lora, id=f"{name}-{kind}-{tuning}", marks=marks)
                )
    return found


def brief(name: str) -> Method:
    """The method in few steps: what it leaves behind does not depend on how many."""
    fields = all_methods()[name].model_fields
    few = {key: 2 for key in ("min_steps", "augment_min_steps") if key in fields}
    return build(name, few | QUICK.get(name, {}))


def weights(model: Recommender) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.lm.state_dict().items()}


NEW_METHOD = '''
"""A method that somebody has just written."""

from typing import ClassVar

from ..unlearning.paired import Paired, answer_loss


class Ascent(Paired):
    """`−CE(D_f) + CE(D_r)`."""

    name: ClassVar[str] = "ascent"

    def terms(self, task, steps):
        loss = answer_loss(task)
        return {"forget": lambda z, batch: -loss(z, batch), "retain": loss}
'''


@pytest.fixture
def new_file(tmp_path, monkeypatch):
    """Put a file into the folder of methods, so to say; it is gone again afterwards."""

    def write(text: str) -> None:
        (tmp_path / "new_method.py").write_text(text, encoding="utf-8")
        monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])

    yield write
    sys.modules.pop("e2urec.methods.new_method", None)
    vars(methods).pop("new_method", None)


def entry_point(name: str, value: str) -> metadata.EntryPoint:
    return metadata.EntryPoint(name, value, "e2urec.methods")


def with_entry_points(monkeypatch, *points: metadata.EntryPoint) -> tuple[list[str], list[str]]:
    """Names of all methods with these entry points, and the warnings that they cause."""
    monkeypatch.setattr(metadata, "entry_points", lambda group: metadata.EntryPoints(points))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names_of_methods = list(all_methods())
    return names_of_methods, [str(warning.message) for warning in caught]


def test_methods_are_sorted_by_name():
    assert list(all_methods()) == sorted(all_methods())


def test_file_put_into_the_folder_is_a_method_that_builds_and_runs(new_file):
    before = list(all_methods())
    new_file(NEW_METHOD)
    assert list(all_methods()) == sorted([*before, "ascent"])
    method = build("ascent", {"min_steps": 2, "lora": {"rank": 2}})
    task = toy_task("causal")
    scores = task.original.score(task.forget)
    model = method.unlearn(task)
    assert method.lora.rank == 2
    assert np.isfinite(model.score(task.forget)).all()
    assert not np.array_equal(model.score(task.forget), scores)


def test_file_with_a_name_that_is_taken_is_left_out_with_a_warning(new_file):
    new_file(NEW_METHOD.replace('"ascent"', '"neggrad"'))
    with pytest.warns(UserWarning, match=r"'neggrad' of e2urec\.methods\.new_method .*rename it"):
        assert all_methods()["neggrad"].__module__ == "e2urec.methods.neggrad"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_package:Method", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("e2urec.methods.neggrad:Missing", "AttributeError"),
        ("e2urec.core.errors:ConfigError", "not a subclass of Method"),
        ("e2urec.unlearning.paired:Paired", "with a name of its own"),
    ],
)
def test_broken_entry_point_costs_one_line_of_warning_and_no_method(monkeypatch, value, reason):
    before = list(all_methods())
    names_of_methods, messages = with_entry_points(monkeypatch, entry_point("broken", value))
    assert names_of_methods == before
    assert len(messages) == 1
    assert f"entry point 'broken = {value}'" in messages[0]
    assert reason in messages[0]
    assert "uninstall the package" in messages[0]
    assert "\n" not in messages[0]


def test_entry_point_of_another_package_joins_in_the_order_of_names(monkeypatch, new_file):
    new_file(NEW_METHOD)
    other = type("Other", (all_methods()["ascent"],), {"name": "other", "__doc__": "Another."})
    monkeypatch.setattr(sys.modules["e2urec.methods.new_method"], "Other", other, raising=False)
    other.__module__ = "elsewhere"
    point = entry_point("other", "e2urec.methods.new_method:Other")
    names_of_methods, messages = with_entry_points(monkeypatch, point)
    assert names_of_methods == sorted(names_of_methods)
    assert {"ascent", "other", "e2urec"} <= set(names_of_methods)
    assert not messages


def test_entry_point_that_names_a_built_in_method_once_more_changes_nothing(monkeypatch):
    before = list(all_methods())
    point = entry_point("again", "e2urec.methods.neggrad:NegGrad")
    assert with_entry_points(monkeypatch, point) == (before, [])


@pytest.mark.parametrize("name", all_methods())
def test_settings_round_trip_and_are_all_described(name):
    check_settings(build(name))


def test_a_part_of_a_setting_that_is_not_given_stays_as_it_is_by_default():
    method = build("e2urec", {"lora": {"rank": 4}, "speed": {"replay": False}})
    assert method.lora == build("e2urec").lora.model_copy(update={"rank": 4})
    assert build("e2urec", {"lora": {"rank": 4}}, "paper").lora.dropout == 0.05


@pytest.mark.parametrize("name", all_methods())
def test_unknown_setting_is_refused_with_the_nearest_known_one(name):
    with pytest.raises(ConfigError, match="unknown setting"):
        build(name, {"no_such_setting": 1})


@pytest.mark.parametrize(("name", "kind", "lora"), unlearnings())
def test_method_changes_the_scores_and_leaves_one_whole_model(name, kind, lora):
    check_unlearning(brief(name), kind, lora=lora)


@pytest.mark.parametrize("name", all_methods())
def test_same_seed_gives_the_same_scores_and_another_seed_others(name):
    check_reproducible(brief(name))


@pytest.mark.parametrize("name", all_methods())
def test_plan_counts_the_rows_that_are_read_and_updates_the_steps_that_move_the_recommender(name):
    method, taken = brief(name), []
    task = toy_task_for(method, "causal")
    task.progress = lambda phase, done, total, loss=None: taken.append(phase)
    method.unlearn(task)
    planned = method.plan(len(task.forget), len(task.retain), task.tuning.schedule)
    for phase, rows in planned.items():
        if method.prepares:  # the request may touch every shard, or some
            assert 0 < task.costs.rows[phase] <= rows
        elif phase != "teachers":  # the calibration users are read there too
            assert abs(task.costs.rows.get(phase, 0) - rows) <= 2 * 16, phase
    steps = method.updates(len(task.forget), len(task.retain), task.tuning.schedule)
    if method.prepares:  # an estimate: how many shards are touched is not known
        assert steps >= len(taken) - method.shards * task.tuning.schedule.epochs
    elif name == "ifru":
        assert steps == 1
    else:
        assert steps == sum(phase != "augmented" for phase in taken)


@pytest.mark.parametrize("preset", ["gain", "paper"])
@pytest.mark.parametrize("kind", KINDS)
def test_e2urec_logs_every_phase_beside_the_unseen_users(kind, preset):
    task = toy_task(kind)
    build("e2urec", {"joint": 1.0}, preset).unlearn(task)
    begun = {"gain": "start", "paper": "warmup"}[preset]
    assert [seen.phase for seen in task.phase_logs] == ["original", "teacher", begun, "joint"]
    assert all(
        np.isfinite([s.forget_auc, s.forget_log_loss, s.unseen_auc, s.unseen_log_loss]).all()
        for s in task.phase_logs
    )


def test_e2urec_forgets_what_the_original_learned_by_heart():
    task = toy_task("causal")
    build("e2urec", {"joint": 6, "warmup": 2, "learning_rate": 1e-2, "alpha": 2}, "gain").unlearn(
        task
    )
    first, last = task.phase_logs[0], task.phase_logs[-1]
    assert last.forget_log_loss > first.forget_log_loss
    assert last.forget_auc < first.forget_auc


@pytest.mark.parametrize("kind", KINDS)
def test_e2urec_starts_the_student_at_the_negated_augmented_adapter(kind):
    task = toy_task(kind)
    original, rows = task.original, task.forget
    lora = LoRA(rank=2, targets="all")
    with Student(task, lora, seed=1, name="augmented") as student:
        steps = [{"train": np.arange(8)}] * 4
        student.fit(
            "augmented", steps, supervised(original, rows), Schedule(epochs=1, learning_rate=1e-3)
        )
        update, gain = (
            student.weights(),
            predict(original, rows, active=student.active, precision="fp32").log_odds,
        )
    before = predict(original, rows, precision="fp32").log_odds
    moved = []
    with Student(task, lora, seed=2) as student:
        for scale in (1.0, -1e-2):
            student.start_at(update, scale)
            moved.append(
                predict(original, rows, active=student.active, precision="fp32").log_odds - before
            )
    assert np.allclose(moved[0], gain - before, atol=1e-5)
    assert np.corrcoef(moved[0], moved[1])[0, 1] < -0.9


def test_e2urec_start_is_halved_until_it_moves_the_retain_set_little():
    moved = []
    for max_retain_kl in (1e9, 1e-3):
        task = toy_task("causal")
        retain, before = task.retain, task.original.score(task.retain)
        strong = {
            "alpha": 2.0,
            "augment_rate": 1e-2,
            "start_scale": 3.0,
            "lora": {"targets": "all", "upper": 1.0},
        }
        method = build("e2urec", strong | {"joint": 0, "max_retain_kl": max_retain_kl}, "gain")
        moved.append(np.abs(method.unlearn(task).score(retain) - before).mean())
    assert 0 < moved[1] < moved[0] / 4


def test_e2urec_refuses_a_start_without_an_augmented_adapter():
    with pytest.raises(ConfigError, match="set start_scale to 0"):
        build("e2urec", {"augment": "full"}, "gain")


def test_interrupted_method_leaves_no_adapter_on_the_original():
    task = toy_task("causal")

    def interrupt(phase: str, done: int, total: int, loss: float | None = None) -> None:
        if phase == "joint":
            raise KeyboardInterrupt

    task.progress = interrupt
    before = task.original.score(task.forget)
    with pytest.raises(KeyboardInterrupt):
        build("e2urec", preset="gain").unlearn(task)
    assert names(task.original.lm) == []
    assert np.array_equal(task.original.score(task.forget), before)
