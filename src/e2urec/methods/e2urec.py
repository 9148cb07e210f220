"""E2URec: two teachers guide a small adapter (arXiv 2403.03536; Frontiers of Computer Science 19(3), 2025).

    z_F   = z_o − α·relu(z_aug − z_o)                        forgetting teacher, on D_f
    L_FGT = KL(softmax(z_F) ‖ p_θ)                           on D_f
    L_REM = KL(p_o ‖ p_θ) + CE(y, p_θ)                       on D_r
    L     = β·L_FGT + (1 − β)·L_REM                          only the adapter's θ moves

`z_o` are the original's answer-position logits, `z_aug` those of the original tuned further on D_f.
"""

import math
from collections.abc import Mapping
from functools import reduce
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from ..losses import TeacherSpace, cross_entropy, kl_divergence
from ..metrics import auc
from ..models.adapters import LoRA
from ..models.batches import Examples, endless, join, shuffled
from ..models.recommender import Recommender
from ..predictions import predict, states
from ..seeding import derive
from ..task import Method, Task
from ..teachers import ForgettingTeacher, RememberingTeacher
from ..training import Losses, Schedule, Step, fit
from ..tuning import supervised
from .student import Student


class E2URec(Method):
    """Forget with two teachers: the original less its gain from D_f, and the original on D_r."""

    name: ClassVar[str] = "e2urec"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "alpha": 2.0, "teacher": "raw", "augment": "full", "augment_passes": 1.48, "augment_rate": 5e-5,
            "warmup": 1.0, "joint": 0.232, "final": 0.0, "beta": 0.4, "remember": "kl+ce",
            "learning_rate": 1e-3, "floor": 1.0, "lora": {"rank": 16, "alpha": 32, "dropout": 0.05},
        }
    }  # fmt: skip

    alpha: float | Literal["auto"] = Field(
        "auto",
        description="how much of the gain on D_f the forgetting teacher takes off; auto: until its AUC on D_f is "
        "the original's AUC on the calibration users",
    )
    teacher: TeacherSpace = Field("odds", description="where the gain is measured: raw, logprob or odds")
    augment: Literal["adapter", "full"] = Field("adapter", description="augmented model: an adapter, or a full copy")
    augment_passes: float = Field(3.0, gt=0, description="passes over D_f that make the augmented model")
    augment_rate: float = Field(1e-3, gt=0, description="learning rate of the augmented model")
    warmup: float = Field(1.0, ge=0, description="passes over D_f with L_FGT alone, before the joint phase")
    joint: float = Field(3.0, ge=0, description="passes over D_f with L_FGT and L_REM together")
    final: float = Field(0.0, ge=0, description="passes over D_f with L_FGT alone, after the joint phase")
    beta: float = Field(0.8, ge=0, le=1, description="weight of L_FGT in the joint phase; L_REM has 1 − beta")
    remember: Literal["kl", "kl+ce"] = Field("kl", description="remembering loss: KL to the original, or KL + CE")
    learning_rate: float = Field(2e-3, gt=0, description="highest learning rate of the student")
    floor: float = Field(0.1, ge=0, le=1, description="last learning rate of a phase as a share of the highest")
    batch_size: int = Field(16, ge=1, description="rows of D_f (and of D_r, in the joint phase) a step")
    lora: LoRA = Field(LoRA(), description="adapter of student and augmented model")

    def unlearn(self, task: Task) -> Recommender:
        """Forget `task.forget`; returns the merged model, or the original with one replacement adapter."""
        forget, retain, original = task.forget, task.retain, task.original
        task.watch("original", original)
        phases = self._phases(task)
        with task.costs.phase("teachers"):
            remembering = self._remembering(task, phases)
            on_forget = states(original, forget, precision=task.precision)
            task.costs.read("teachers", len(forget))
        forgetting = self._forgetting(task, on_forget)
        if self.alpha == "auto":
            with task.costs.phase("teachers"):
                held = predict(original, task.calibration, precision=task.precision)
                forgetting = forgetting.matching(forget.labels, auc(held.labels, held.odds))
                task.costs.read("teachers", len(task.calibration))
        self._log_teacher(task, forgetting)
        rows = {"forget": forget, "retain": retain}

        def objective(wrapped: nn.Module, step: Step) -> Losses:
            batches = {name: original.collate(rows[name], index) for name, index in step.items()}
            whole = reduce(lambda a, b: join(a, b, original.pad), batches.values())
            z = dict(zip(batches, wrapped(whole).split([len(batch.index) for batch in batches.values()]), strict=True))
            losses = {}
            if "forget" in step:
                losses["forget"] = kl_divergence(forgetting(batches["forget"].index), z["forget"])
            if "retain" in step:
                losses["remember"] = kl_divergence(remembering(batches["retain"].index), z["retain"])
                if self.remember == "kl+ce":
                    answers = original.answers.tokens(batches["retain"].labels)
                    losses["remember"] += cross_entropy(z["retain"], answers)
            return losses

        weights = {"joint": {"forget": self.beta, "remember": 1 - self.beta}}
        with Student(task, self.lora, seed=derive(task.seed, "student")) as student:
            for phase, steps in phases.items():
                student.fit(phase, steps, objective, self._schedule(task, self.learning_rate), weights.get(phase))
                if steps:
                    task.watch(phase, original, active=student.active)
            return student.finish()

    def plan(self, forget: int, retain: int, epochs: int) -> dict[str, int]:
        """Rows read in each phase; a joint step reads as many retain rows as forget rows."""
        passes = {"warmup": self.warmup, "joint": 2 * self.joint, "final": self.final}
        rows = {"augmented": math.ceil(self.augment_passes * forget)}
        rows["teachers"] = 2 * forget + min(retain, math.ceil(self.joint * forget))
        return rows | {phase: math.ceil(count * forget) for phase, count in passes.items()}

    def updates(self, forget: int, retain: int, epochs: int) -> int:
        """Steps of the student in all its phases."""
        return sum(self._steps(passes, forget) for passes in (self.warmup, self.joint, self.final))

    def _steps(self, passes: float, rows: int) -> int:
        return math.ceil(passes * math.ceil(rows / self.batch_size))

    def _phases(self, task: Task) -> dict[str, list[Step]]:
        """Steps of each phase. Retain rows go round all of D_r before any is read twice: none is cut off."""
        seed = derive(task.seed, "phases")
        batches = endless(task.forget.lengths, self.batch_size, seed=seed)
        retained = endless(task.retain.lengths, self.batch_size, seed=derive(seed, "retain"))
        phases: dict[str, list[Step]] = {}
        for phase, passes in (("warmup", self.warmup), ("joint", self.joint), ("final", self.final)):
            steps: list[Step] = [{"forget": next(batches)} for _ in range(self._steps(passes, len(task.forget)))]
            if phase == "joint":
                steps = [{**step, "retain": next(retained)} for step in steps]
            phases[phase] = steps
        return phases

    def _remembering(self, task: Task, phases: Mapping[str, list[Step]]) -> RememberingTeacher:
        """The original's states on the retain rows that some step reads, each computed once."""
        read = [step["retain"] for steps in phases.values() for step in steps if "retain" in step]
        weight, bias = task.original.head
        device = task.original.device
        kept = torch.zeros((len(task.retain), weight.shape[1]), device=device)
        if read:
            rows = np.unique(np.concatenate(read))
            kept[torch.from_numpy(rows).to(device)] = states(
                task.original, task.retain.take(rows), precision=task.precision
            )
            task.costs.read("teachers", len(rows))
        return RememberingTeacher(kept, (weight, bias))

    def _forgetting(self, task: Task, on_forget: torch.Tensor) -> ForgettingTeacher:
        """Tune the augmented model, keep its states on D_f, and let go of it: it never touches the disk."""
        seed = derive(task.seed, "augmented")
        original, forget = task.original, task.forget
        weight, bias = original.head
        schedule = self._schedule(task, self.augment_rate)
        steps = _passes(forget, self.batch_size, self.augment_passes, seed)
        if self.augment == "full":
            augmented = original.copy()
            with task.costs.phase("augmented"):
                augmented.lm.requires_grad_(True)
                trace = fit(
                    augmented, list(augmented.lm.parameters()), lambda epoch: steps, supervised(augmented, forget),
                    schedule, seed=seed, progress=task.progress, phase="augmented",
                )  # fmt: skip
                task.costs.read("augmented", trace.rows)
                gained = states(augmented, forget, precision=task.precision)
                augmented_head = (augmented.head[0].detach(), augmented.head[1])
        else:
            with Student(task, self.lora, seed=seed, name="augmented") as student:
                student.fit("augmented", steps, supervised(original, forget), schedule)
                with task.costs.phase("teachers"):
                    gained = states(original, forget, active=student.active, precision=task.precision)
                    task.costs.read("teachers", len(forget))
            augmented_head = (weight, bias)
        return ForgettingTeacher(
            on_forget,
            gained,
            (weight, bias),
            augmented_head,
            _number(self.alpha),
            self.teacher,
            original.answers,
        )

    def _log_teacher(self, task: Task, forgetting: ForgettingTeacher) -> None:
        """The teacher's own loss and AUC on D_f: what it overshoots, no student can mend."""
        with task.costs.phase("watching"):
            unseen = predict(task.original, task.unseen, precision=task.precision)
            task.sight("teacher", forgetting.odds().cpu().numpy(), unseen.odds)

    def _schedule(self, task: Task, rate: float) -> Schedule:
        return Schedule(
            epochs=1, batch_size=self.batch_size, learning_rate=rate, floor=self.floor, weight_decay=0.0,
            precision=task.precision,
        )  # fmt: skip


def _passes(rows: Examples, size: int, passes: float, seed: int) -> list[Step]:
    """Steps named `train` that make `passes` passes over `rows`."""
    per_pass = math.ceil(len(rows) / size)
    steps: list[Step] = []
    for epoch in range(math.ceil(passes)):
        steps += [{"train": index} for index in shuffled(rows.lengths, size, seed=seed, epoch=epoch)]
    return steps[: math.ceil(passes * per_pass)]


def _number(alpha: float | Literal["auto"]) -> float:
    return 1.0 if alpha == "auto" else alpha
