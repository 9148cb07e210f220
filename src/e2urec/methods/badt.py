"""Bad Teacher: an incompetent teacher on the forget set, the original on the retain set.

Chundawat et al. 2023, arXiv 2205.08096.

    L(θ) = w·KL(p_bad ‖ p_θ) on D_f + KL(p_o ‖ p_θ) on D_r

The paper's incompetent teacher has random weights (`teacher=random`). Ours by default is the base
before any user's data, which knows the language but no user. `uniform` and the weight w are ours
too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from ..core.errors import ConfigError
from ..core.seeding import derive
from ..models.batches import Batch
from ..models.recommender import Recommender
from ..training.loop import Step
from ..unlearning.losses import with_odds
from ..unlearning.paired import Paired, Teacher, Term, teacher_loss
from ..unlearning.student import frozen_teacher
from ..unlearning.task import Task


class BadTeacher(Paired):
    """`KL(p_bad ‖ p_θ)` on D_f, `KL(p_o ‖ p_θ)` on D_r: know as little of D_f as a bad teacher."""

    name: ClassVar[str] = "badt"
    needs_base: ClassVar[bool] = True
    # Not `random`: it knows no language either, so a student of it loses more than D_f.
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Paired.search,
        "teacher": ("base", "uniform"),
        "weight": (0.1, 0.3, 1.0),
    }

    teacher: Literal["base", "random", "uniform"] = Field(
        "base",
        description="the bad teacher: the base before any user's data, the same architecture with "
        "random weights, or the original with even odds of the two answers",
    )
    weight: float = Field(1.0, ge=0, description="weight of the term on D_f")

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """KL to the bad teacher on D_f, and to the original on D_r.

        Raises:
            ConfigError: the teacher is made from the base, and the task holds none.
        """
        retain_batches = [step["retain"] for step in steps]
        good_teacher = frozen_teacher(
            task.original,
            task,
            task.retain,
            retain_batches,
        )
        bad_teacher = self._bad_teacher(task, steps)
        bad_loss = teacher_loss(bad_teacher)

        def forget_loss(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            return self.weight * bad_loss(z, batch)

        return {
            "forget": forget_loss,
            "retain": teacher_loss(good_teacher),
        }

    def _bad_teacher(self, task: Task, steps: Sequence[Step]) -> Teacher:
        original = task.original
        forget_batches = [step["forget"] for step in steps]
        if self.teacher != "uniform":
            bad_model = self._bad_model(task)
            return frozen_teacher(bad_model, task, task.forget, forget_batches)
        original_answers = frozen_teacher(original, task, task.forget, forget_batches)

        def even_odds(rows: torch.Tensor) -> torch.Tensor:
            z = original_answers(rows)
            # Log-odds of 0 are a probability of one half for either answer.
            odds = torch.zeros_like(z[:, 0])
            return with_odds(z, odds, original.verbaliser)

        return even_odds

    def _bad_model(self, task: Task) -> Recommender:
        if task.base is None:
            raise ConfigError("method 'badt' needs the base model; give it, or set teacher=uniform")
        backbone = task.base
        if self.teacher == "random":
            seed = derive(task.seed, "bad teacher")
            backbone = task.base.with_random_weights(seed=seed)
        return Recommender(
            backbone,
            task.original.template,
            window=task.original.window,
        )
