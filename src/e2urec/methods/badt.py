"""Bad Teacher (Chundawat et al. 2023, arXiv 2205.08096): an incompetent teacher on D_f, the original on D_r."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from ..core.errors import ConfigError
from ..core.seeding import derive
from ..models.batches import Batch
from ..models.recommender import Recommender
from ..training.loop import Step
from ..unlearning.losses import kl_divergence, with_odds
from ..unlearning.paired import Paired, Term
from ..unlearning.student import frozen_teacher
from ..unlearning.task import Task


class BadTeacher(Paired):
    """`KL(p_bad ‖ p_θ)` on D_f, `KL(p_o ‖ p_θ)` on D_r: on D_f, answer as a model that knows nothing."""

    name: ClassVar[str] = "badt"
    needs_base: ClassVar[bool] = True
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Paired.search,
        "teacher": ("base", "uniform"),
        "weight": (0.1, 0.3, 1.0),
    }

    teacher: Literal["base", "random", "uniform"] = Field(
        "base",
        description="who is incompetent: the base before any user's data, the same architecture with random weights, "
        "or the original with even odds of the two answers",
    )
    weight: float = Field(1.0, ge=0, description="weight of the term on D_f")

    def terms(self, task: Task, steps: Sequence[Step]) -> Mapping[str, Term]:
        """Raise ConfigError without a base, where the teacher needs one."""
        original = task.original
        read = {name: [step[name] for step in steps] for name in ("forget", "retain")}
        good = frozen_teacher(original, task, task.retain, read["retain"])
        if self.teacher == "uniform":
            known = frozen_teacher(original, task, task.forget, read["forget"])

            def bad(rows: torch.Tensor) -> torch.Tensor:
                z = known(rows)
                return with_odds(z, torch.zeros_like(z[:, 0]), original.verbaliser)
        else:
            bad = frozen_teacher(self._incompetent(task), task, task.forget, read["forget"])

        def on_forget(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            return self.weight * kl_divergence(bad(batch.index), z)

        return {"forget": on_forget, "retain": lambda z, batch: kl_divergence(good(batch.index), z)}

    def _incompetent(self, task: Task) -> Recommender:
        if task.base is None:
            raise ConfigError("method 'badt' needs the base model; give it, or set teacher=uniform")
        made = (
            task.base
            if self.teacher == "base"
            else task.base.with_random_weights(seed=derive(task.seed, "bad teacher"))
        )
        return Recommender(made, task.original.template, window=task.original.window)
