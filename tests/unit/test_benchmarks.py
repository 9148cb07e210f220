"""What the benchmarks compare with must itself be right, and so must what they report."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from e2urec.evaluation.results import Results
from e2urec.evaluation.roles import UNLEARNED
from e2urec.evaluation.verdict import Verdict
from e2urec.experiments.recipe import Recipe
from e2urec.methods import build
from e2urec.metrics.bootstrap import Interval
from e2urec.models.adapters import names
from e2urec.models.predictions import answer_states
from e2urec.testing import toy_task
from e2urec.unlearning.losses import forgetting_teacher, kl_divergence

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import one_variant
import preparation
import published
import style
import unlearning
import unlearning_report
import variants
import verdict_calibration
from common import UnloggedTask
from one_variant import Measurement
from published import ALPHA, Published

SOURCE = '''
"""A module."""

# A comment.
LIMIT = 3


class Shelf:
    """A class."""

    kept: int = 0

    def fill(self, each, others=(), *, given, a=1, b=2, c=3):
        """Two lines of signature do not make two lines of body.

        Nor do those of a docstring.
        """
        # A comment is no code.
        self._found = each

        if given and others:
            return given
        return 0


def empty():
    """A body of nothing but a docstring."""
'''


def measurement(total, size):
    return Measurement(
        seconds={"loading": 9.0, "joint": total},
        bytes=size,
        bytes_in_total=2 * size,
        rows={"forget": 3},
        total=total,
        odds={},
    )


def test_published_algorithm_moves_the_student_towards_its_teacher_and_the_original_not_at_all():
    task = toy_task("causal")
    before = {name: value.clone() for name, value in task.original.lm.state_dict().items()}
    plain = Published(task.original, task.forget, task.retain, seed=0, embeddings=True)
    student = plain.unlearn(augment=8, warmup=6, joint=1)
    assert all(
        torch.equal(value, before[name]) for name, value in task.original.lm.state_dict().items()
    )
    assert names(student.lm) == []
    assert set(plain.seconds) == {"augmented", "warmup", "joint"}
    z = {
        name: model.to_logits(answer_states(model, task.forget, precision="fp32"))
        for name, model in {
            "original": task.original,
            "augmented": plain.augmented,
            "student": student,
        }.items()
    }
    teacher = forgetting_teacher(z["original"], z["augmented"], ALPHA, "raw", student.verbaliser)
    assert kl_divergence(teacher, z["student"]) < 0.9 * kl_divergence(teacher, z["original"])


@pytest.mark.parametrize("embeddings", [True, False])
def test_published_augmented_model_tunes_what_the_original_tuned(embeddings):
    task = toy_task("seq2seq")
    before = {name: value.clone() for name, value in task.original.lm.state_dict().items()}
    plain = Published(task.original, task.forget, task.retain, seed=0, embeddings=embeddings)
    plain.unlearn(augment=1, warmup=0, joint=0)
    after = plain.augmented.lm.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert ("shared.weight" in moved) is embeddings
    assert any("SelfAttention" in name for name in moved)


def test_published_hands_memory_back_as_often_as_ours(monkeypatch):
    calls = []
    monkeypatch.setattr(published, "release_free_memory", lambda rounds=0: calls.append(rounds))
    task = toy_task("causal")
    passes = 20 * published.BATCH_SIZE / len(task.forget)
    plain = Published(task.original, task.forget, task.retain, seed=0)
    plain.unlearn(augment=passes, warmup=passes, joint=passes)
    # After each step, of which every eighth counts, and at the end of each phase.
    assert calls == [*range(1, 21), 0] * 3


def test_published_passes_of_the_benchmark_are_those_of_preset_paper():
    released = variants.VARIANTS[variants.PUBLISHED].settings
    assert released == {"augment": 1.48, "warmup": 1.0, "joint": 0.232}
    # 12,982 rows of D_f in batches of 16: the checkpoints of 1,200 and of 812 + 188 steps.
    task = toy_task("causal")
    plain = Published(task.original, range(12_982), task.retain, seed=0)
    steps = [plain._step_count(passes) for passes in released.values()]
    assert steps == pytest.approx([1200, 812, 188], abs=1)
    two = variants.VARIANTS[variants.TWO_PASSES].settings
    assert two == released | {"joint": 2.0}
    ours = build("e2urec", variants.SAME_PASSES)
    assert (ours.augment_passes, ours.warmup, ours.joint) == tuple(released.values())


def test_a_job_of_the_published_algorithm_makes_the_passes_of_its_variant(monkeypatch):
    made = []

    class Recorded(Published):
        def unlearn(self, **passes):
            made.append((passes, self.embeddings))
            return super().unlearn(augment=0, warmup=0, joint=0)

    monkeypatch.setattr(one_variant, "Published", Recorded)
    task = toy_task("causal")
    recipe = Recipe().updated(["tuning.embeddings=false"])
    rows = SimpleNamespace(forget=task.forget, retain=task.retain)
    case = SimpleNamespace(space=SimpleNamespace(recipe=recipe), original=task.original, rows=rows)
    for name in (variants.PUBLISHED, variants.TWO_PASSES):
        variant = variants.VARIANTS[name]
        job = SimpleNamespace(method=variant.method, settings=variant.settings)
        _, seconds = one_variant.unlearn(job, case)
        assert set(seconds) == {"augmented", "warmup", "joint"}
    assert [passes["joint"] for passes, _ in made] == [0.232, 2.0]
    assert not any(embeddings for _, embeddings in made)


def test_generated_ratings_have_zipf_items_and_are_split_and_resolved():
    ratings, items = preparation.tables(20_000)
    counts = np.sort(ratings["item"].value_counts()["count"].to_numpy())[::-1]
    assert counts[0] > 5 * counts[20]
    assert items.height == preparation.ITEMS
    report = preparation.without_text(20_000)
    assert report["forget"] > 0
    assert report["retain"] > report["forget"]


def test_an_unlogged_task_is_the_same_task_without_logs():
    task = toy_task("causal")
    unlogged = UnloggedTask(**vars(task))
    assert vars(unlogged) == vars(task)
    unlogged.log_phase("joint", task.original)
    assert unlogged.phase_logs == []
    assert "logging" not in unlogged.costs.seconds


def test_report_headlines_the_published_algorithm_at_its_released_passes():
    measurements = {
        ("published", 0.2): measurement(100.0, 400),
        ("published_two_passes", 0.2): measurement(300.0, 500),
        ("same_precision", 0.2): measurement(50.0, 100),
        ("all", 0.2): measurement(20.0, 200),
        ("gain", 0.2): measurement(10.0, 200),
        ("default", 0.2): measurement(12.5, 200),
        ("retrain", 0.2): measurement(60.0, 300),
        ("default", 0.03): measurement(2.0, 200),
        ("retrain", 0.03): measurement(50.0, 300),
        ("default", unlearning_report.SINGLE): measurement(1.0, 200),
        ("retrain", unlearning_report.SINGLE): measurement(70.0, 300),
    }
    report = unlearning_report.full_report(measurements, None)
    assert report["headline"]["same_precision"] == {
        "speedup": 2.0,
        "memory_ratio": 0.25,
        # Loading the model is no phase of the comparison.
        "phases": {"joint": [100.0, 50.0]},
    }
    speedups = {name: figures["speedup"] for name, figures in report["headline"].items()}
    assert speedups == {"same_precision": 2.0, "all": 5.0, "gain": 10.0, "default": 8.0}
    assert report["two_passes"]["gain"]["speedup"] == 30.0
    assert report["retrain_speedup"] == {"20%": 4.8, "3%": 25.0, "one user": 70.0}
    assert report["passes"]["published"] == pytest.approx(2.712)
    assert report["passes"]["published_two_passes"] == pytest.approx(4.48)
    assert report["passes"]["gain"] == 2.5
    assert report["variants"]["default, 3%"]["total"] == 2.0
    lines = unlearning.headline_lines(report)
    assert "released passes over D_f (augment 1.48, warmup 1, joint 0.232)" in lines[0]
    assert lines[1] == "  same_precision: 2.0 times as fast, 0.25 of the memory"
    # Twice as many seconds by the published algorithm alone, twice the ratio: one run has both.
    measurements["published", 0.2] = measurement(200.0, 400)
    report = unlearning_report.full_report(measurements, None)
    assert report["headline"]["all"]["speedup"] == 10.0
    assert report["two_passes"]["gain"]["speedup"] == 30.0


def test_report_leaves_out_what_was_not_measured():
    measurements = {
        ("published", 0.2): measurement(100.0, 400),
        ("default", 0.2): measurement(10.0, 200),
    }
    report = unlearning_report.full_report(measurements, None)
    assert list(report["headline"]) == ["default"]
    assert (report["two_passes"], report["retrain_speedup"]) == ({}, {})
    assert len(unlearning.headline_lines(report)) == 2


def test_phases_of_the_headline_have_the_seconds_of_both_sides():
    theirs = measurement(10.0, 1)
    theirs.seconds.update(warmup=4.0)
    ours = measurement(5.0, 1)
    ours.seconds.update(teachers=1.0)
    phases = unlearning_report.against(ours, theirs)["phases"]
    assert phases == {"joint": [10.0, 5.0], "warmup": [4.0, 0.0], "teachers": [0.0, 1.0]}


def test_benchmark_prints_its_headline_first_and_levers_have_none(capsys):
    measurements = {
        (name, 0.2): measurement(seconds, 100)
        for name, seconds in (("published", 9.0), ("published_two_passes", 27.0))
    }
    measurements |= {(name, 0.2): measurement(3.0, 50) for name in unlearning_report.OURS}
    unlearning.show(unlearning_report.full_report(measurements, None))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Against the published algorithm at its released passes")
    assert lines[3] == "  gain: 3.0 times as fast, 0.50 of the memory"
    assert lines[6].startswith("published, 20%")
    unlearning.show(unlearning_report.levers_report(measurements, None))
    assert capsys.readouterr().out.startswith("published, 20%")


def test_passes_of_preset_gain_are_reported_only_where_it_forgets_no_less():
    figures = {
        "gain": {"memory_auc": {"value": 0.5}},
        "published": {"memory_auc": {"value": 0.3, "high": 0.4}},
    }
    assert unlearning_report.compared_passes(figures)["gain"] is None
    figures["gain"]["memory_auc"]["value"] = 0.35
    assert unlearning_report.compared_passes(figures)["gain"] == 2.5


def test_levers_are_reported_against_the_first():
    measurements = {
        ("every lever", 0.03): measurement(10.0, 100),
        ("float32", 0.03): measurement(15.0, 50),
    }
    report = unlearning_report.levers_report(measurements, None)
    assert report["levers"]["float32, 3%"] == {"slower": 1.5, "larger": 0.5}


def test_a_tally_counts_verdicts_and_agreement():
    def results(outcome):
        figure = Interval(0.1, 0.0, 0.2, 10)
        verdict = Verdict(outcome, "", "", memory=figure, auc_drop=figure)
        return Results({}, (UNLEARNED,), {UNLEARNED: verdict})

    tally = verdict_calibration.Tally()
    for by_shadows in ("PASS", "RETRAIN"):
        by_basis = {"retrained": results("PASS"), "shadows": results(by_shadows)}
        tally.add(verdict_calibration.verdict_record(by_basis))
    report = tally.as_dict()
    assert report["retrained"]["PASS"][:2] == [2, 1.0]
    assert report["shadows"]["RETRAIN"][:2] == [1, 0.5]
    assert report["agreement"][:2] == [1, 0.5]
    assert report["memory"] == [[0.1, 0.0, 0.2]] * 2
    # 1 − 0.025 ** (1 / n), the exact limit where all of n agree
    assert report["retrained"]["PASS"][2] == pytest.approx(0.025**0.5)


def test_style_is_counted_in_code_lines_without_docstrings_and_comments(tmp_path):
    (tmp_path / "shelf.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "wide.py").write_text(f"TEXT = '{'x' * 100}'\n", encoding="utf-8")
    measured = style.measure(tmp_path)
    assert measured.files == 2
    assert (measured.longest_name, measured.longest_lines) == ("shelf.py", 27)
    # A signature alone; a line of signature and four of body.
    assert sorted(function.lines for function in measured.functions) == [1, 5]
    assert sorted(function.body_lines for function in measured.functions) == [0, 4]
    assert sorted(function.parameters for function in measured.functions) == [0, 6]
    assert measured.comment_lines == 2
    assert measured.long_lines == 1
    # A field, three parameters and a private attribute; what a name is read as counts nothing.
    assert measured.fillers == 5


def test_style_table_has_a_column_for_each_folder(tmp_path):
    (tmp_path / "shelf.py").write_text(SOURCE, encoding="utf-8")
    measured = style.measure(tmp_path)
    lines = style.table({"one": measured, "two": measured}).splitlines()
    assert lines[0] == "|  | one | two |"
    assert "| functions with 6 parameters or more | 50.0% | 50.0% |" in lines
    assert {line.count("|") for line in lines} == {4}


def test_style_of_a_folder_without_python_says_what_to_name(tmp_path):
    with pytest.raises(SystemExit, match="name a folder of source code"):
        style.measure(tmp_path)
