"""What the benchmarks compare with must itself be right."""

import sys
from pathlib import Path

import numpy as np
import torch

from e2urec.models.adapters import names
from e2urec.models.predictions import answer_states
from e2urec.testing import toy_task
from e2urec.unlearning.losses import forgetting_teacher, kl_divergence

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import preparation
from published import ALPHA, Published


def test_published_algorithm_moves_the_student_towards_its_teacher_and_the_original_not_at_all():
    task = toy_task("causal")
    before = {name: value.clone() for name, value in task.original.lm.state_dict().items()}
    plain = Published(task.original, task.forget, task.retain, seed=0)
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


def test_generated_ratings_have_zipf_items_and_are_split_and_resolved():
    ratings, items = preparation.tables(20_000)
    counts = np.sort(ratings["item"].value_counts()["count"].to_numpy())[::-1]
    assert counts[0] > 5 * counts[20]
    assert items.height == preparation.ITEMS
    found = preparation.without_text(20_000)
    assert found["forget"] > 0
    assert found["retain"] > found["forget"]
