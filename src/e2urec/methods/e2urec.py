"""E2URec: two teachers guide a small adapter (arXiv 2403.03536; Frontiers of Computer Science 19(3), 2025).

    z_F   = z_o − α·relu(z_aug − z_o)                        forgetting teacher, on D_f
    L_FGT = KL(softmax(z_F) ‖ p_θ)                           on D_f
    L_REM = KL(p_o ‖ p_θ) + CE(y, p_θ)                       on D_r
    L     = β·L_FGT + (1 − β)·L_REM                          only the adapter's θ moves

`z_o` are the original's answer-position logits, `z_aug` those of the original tuned further on D_f by an adapter
ΔW. Ours goes beyond the paper in two places. α is chosen by what the original knows of rows that nobody tuned it
on. And the student starts at −s·α·ΔW, since to first order in ΔW that is the forgetting teacher already (negated
task vectors: Ilharco et al. 2023, arXiv 2212.04089): what is left to train is the repair of all other rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from ..errors import ConfigError
from ..losses import TeacherSpace, cross_entropy, kl_divergence
from ..metrics import auc
from ..models.adapters import LoRA
from ..models.batches import Batch, endless, rows_read
from ..models.recommender import Recommender
from ..predictions import predict, states
from ..seeding import derive, stream
from ..task import Method, Task
from ..teachers import ForgettingTeacher, Head
from ..training import Schedule, Step, fit
from ..tuning import supervised
from .paired import side_by_side
from .student import Student, frozen

CHECKED = 128
"""Rows of D_r on which the start is checked."""
SAMPLED = 500
"""Least rows of D_r, and of the calibration users, from which alpha=auto learns what being tuned on is worth."""


@dataclass(frozen=True)
class Augmented:
    """The original tuned further on D_f: all that is kept of it, in memory.

    Attributes:
        states: (n, d) answer-position states on D_f.
        head: its output head.
        adapter: A and B matrices of ΔW; None if it was fully tuned.
    """

    states: torch.Tensor
    head: Head
    adapter: dict[str, torch.Tensor] | None


class E2URec(Method):
    """Forget with two teachers: the original less its gain from D_f, and the original on D_r."""

    name: ClassVar[str] = "e2urec"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "alpha": 2.0, "teacher": "raw", "augment": "full", "augment_passes": 1.48, "augment_rate": 5e-5,
            "start": 0.0, "warmup": 1.0, "joint": 0.232, "final": 0.0, "beta": 0.4, "remember": "kl+ce",
            "floor": 1.0, "fewest": 1, "augment_fewest": 1,
            "lora": {"rank": 16, "alpha": 32, "dropout": 0.05, "targets": "attention"},
        }
    }  # fmt: skip

    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "start": (1.0, 2.0, 3.0, 4.0), "joint": (0.25, 0.5, 1.0), "beta": (0.6, 0.8, 0.9),
        "augment_passes": (1.0, 2.0, 3.0),
    }  # fmt: skip

    alpha: float | Literal["auto"] = Field(
        "auto",
        description="how much of the gain on D_f the forgetting teacher takes off; auto: until its AUC on D_f is "
        "the original's there less what tuning gives the original on D_r over rows of users it was not tuned on",
    )
    teacher: TeacherSpace = Field("odds", description="where the gain is measured: raw, logprob or odds")
    augment: Literal["adapter", "full"] = Field("adapter", description="augmented model: an adapter, or a full copy")
    augment_passes: float = Field(2.0, gt=0, description="passes over D_f that make the augmented model")
    augment_rate: float = Field(1e-3, gt=0, description="learning rate of the augmented model")
    augment_fewest: int = Field(32, ge=1, description="least steps that make it, however few rows D_f has")
    start: float = Field(
        3.0,
        ge=0,
        description="how many times α of the augmented adapter's update the student starts without; "
        "0: it starts as the original",
    )
    reach: float = Field(
        0.1, gt=0, description="most that the start may move D_r, in nats of L_REM; it is halved until it does not"
    )
    warmup: float = Field(0.0, ge=0, description="passes over D_f with L_FGT alone, before the joint phase")
    joint: float = Field(0.5, ge=0, description="passes over D_f with L_FGT and L_REM together")
    final: float = Field(0.0, ge=0, description="passes over D_f with L_FGT alone, after the joint phase")
    beta: float = Field(0.8, ge=0, le=1, description="weight of L_FGT in the joint phase; L_REM has 1 − beta")
    remember: Literal["kl", "kl+ce"] = Field("kl", description="remembering loss: KL to the original, or KL + CE")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the student")
    floor: float = Field(0.1, ge=0, le=1, description="last learning rate of a phase as a share of the highest")
    batch_size: int = Field(16, ge=1, description="rows of D_f (and of D_r, in the joint phase) a step")
    fewest: int = Field(16, ge=1, description="least steps of each of the student's phases, however few rows D_f has")
    lora: LoRA = Field(LoRA(rank=8, alpha=16, targets="all"), description="adapter of student and augmented model")
    sample: float = Field(
        2.0, gt=0, description="rows of D_r, and of the calibration users, that alpha=auto asks for each row of D_f"
    )

    @model_validator(mode="after")
    def _start_needs_an_adapter(self) -> Self:
        if self.start and self.augment == "full":
            raise ConfigError(f"method 'e2urec': start={self.start} needs augment='adapter'; set start to 0")
        return self

    def unlearn(self, task: Task) -> Recommender:
        """Forget `task.forget`; returns the merged model, or the original with one replacement adapter."""
        original = task.original
        task.watch("original", original)
        phases = self._phases(task)
        with task.costs.phase("teachers"):
            read = [step["retain"] for step in phases["joint"]]
            remembering = frozen(original, task, task.retain, read)
        augmented = self._augmented(task)
        with task.costs.phase("teachers"):
            forgetting = self._forgetting(task, augmented)
        self._log_teacher(task, forgetting)

        def on_forget(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            return kl_divergence(forgetting(batch.index), z)

        def on_retain(z: torch.Tensor, batch: Batch) -> torch.Tensor:
            remember = kl_divergence(remembering(batch.index), z)
            if self.remember == "kl+ce":
                remember = remember + cross_entropy(z, original.answers.tokens(batch.labels))
            return remember

        objective = side_by_side(task, {"forget": on_forget, "retain": on_retain})
        weights = {"joint": {"forget": self.beta, "retain": 1 - self.beta}}
        with Student(task, self.lora, seed=derive(task.seed, "student")) as student:
            if augmented.adapter and self.start:
                with task.costs.phase("teachers"):
                    self._start(task, student, augmented.adapter, -self.start * forgetting.alpha)
                task.watch("start", original, active=student.active)
            for phase, steps in phases.items():
                student.fit(
                    phase,
                    steps,
                    objective,
                    task.schedule(self.batch_size, self.learning_rate, self.floor),
                    weights.get(phase),
                )
                if steps:
                    task.watch(phase, original, active=student.active)
            return student.finish()

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """Rows read in each phase; a joint step reads a batch of D_f and one of D_r."""
        steps = self._steps(forget)
        rows = {phase: rows_read(count, forget, self.batch_size) for phase, count in steps.items()}
        retained = rows_read(steps["joint"], retain, self.batch_size)
        rows["joint"] += retained
        rows["teachers"] = 2 * forget + min(retain, retained)
        if self.alpha == "auto":
            rows["teachers"] += min(retain, self._sampled(forget)) + self._sampled(forget)
        if self.start:
            rows["teachers"] += 2 * min(retain, CHECKED)
        return rows

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """Steps of the student in all its phases."""
        return sum(count for phase, count in self._steps(forget).items() if phase != "augmented")

    def _steps(self, forget: int) -> dict[str, int]:
        """Steps of each phase: passes over D_f, and not too few in a phase that is wanted at all."""
        one = math.ceil(forget / self.batch_size)
        steps = {"augmented": max(self.augment_fewest, math.ceil(self.augment_passes * one))}
        for phase, passes in (("warmup", self.warmup), ("joint", self.joint), ("final", self.final)):
            steps[phase] = max(self.fewest, math.ceil(passes * one)) if passes else 0
        return steps

    def _phases(self, task: Task) -> dict[str, list[Step]]:
        """Steps of each phase. Retain rows go round all of D_r before any is read twice: none is cut off."""
        seed = derive(task.seed, "phases")
        batches = endless(task.forget.lengths, self.batch_size, seed=seed)
        retained = endless(task.retain.lengths, self.batch_size, seed=derive(seed, "retain"))
        phases: dict[str, list[Step]] = {}
        for phase, count in self._steps(len(task.forget)).items():
            if phase == "joint":
                phases[phase] = [{"forget": next(batches), "retain": next(retained)} for _ in range(count)]
            elif phase != "augmented":
                phases[phase] = [{"forget": next(batches)} for _ in range(count)]
        return phases

    def _augmented(self, task: Task) -> Augmented:
        """Tune the original further on D_f, keep what the teacher needs, let go of it: it never touches the disk."""
        seed = derive(task.seed, "augmented")
        original, forget = task.original, task.forget
        schedule = task.schedule(self.batch_size, self.augment_rate, self.floor)
        batches = endless(forget.lengths, self.batch_size, seed=seed)
        steps: list[Step] = [{"train": next(batches)} for _ in range(self._steps(len(forget))["augmented"])]
        if self.augment == "full":
            copy = original.copy()
            with task.costs.phase("augmented"):
                copy.lm.requires_grad_(True)
                trace = fit(
                    copy, list(copy.lm.parameters()), lambda epoch: steps, supervised(copy, forget),
                    schedule, seed=seed, progress=task.progress, phase="augmented",
                )  # fmt: skip
                task.costs.read("augmented", trace.rows)
                weight, bias = copy.head
                return Augmented(states(copy, forget, precision=task.precision), (weight.detach(), bias), None)
        with Student(task, self.lora, seed=seed, name="augmented") as student:
            student.fit("augmented", steps, supervised(original, forget), schedule)
            with task.costs.phase("teachers"):
                task.costs.read("teachers", len(forget))
                gained = states(original, forget, active=student.active, precision=task.precision)
            return Augmented(gained, original.head, student.weights())

    def _forgetting(self, task: Task, augmented: Augmented) -> ForgettingTeacher:
        """The teacher on D_f, with α as set or found."""
        original, forget = task.original, task.forget
        on_forget = states(original, forget, precision=task.precision)
        task.costs.read("teachers", len(forget))
        alpha = 0.0 if self.alpha == "auto" else self.alpha
        teacher = ForgettingTeacher(
            on_forget, augmented.states, original.head, augmented.head, alpha, self.teacher, original.answers
        )
        if self.alpha != "auto":
            return teacher
        return teacher.matching(forget.labels, auc(forget.labels, teacher.odds().cpu().numpy()) - self._lead(task))

    def _lead(self, task: Task) -> float:
        """By how much the original's AUC on rows it was tuned on exceeds that on rows of other users.

        How hard a group of users is shifts its AUC; a difference of differences leaves that out.
        """
        chosen = stream(task.seed, "alpha")
        found = []
        for rows in (task.retain, task.calibration):
            some = rows.take(np.sort(chosen.permutation(len(rows))[: self._sampled(len(task.forget))]))
            answers = predict(task.original, some, precision=task.precision)
            found.append(auc(answers.labels, answers.odds))
            task.costs.read("teachers", len(some))
        return found[0] - found[1]

    def _start(self, task: Task, student: Student, adapter: dict[str, torch.Tensor], scale: float) -> None:
        """Put the student at `scale`·ΔW, or at half of it, a quarter…, until D_r moves by `reach` at most.

        What a weak augmented model has learned is mostly how often D_f says Yes: many times that ruins all users.
        """
        some = task.retain.take(np.sort(stream(task.seed, "start").permutation(len(task.retain))[:CHECKED]))

        def logits(active: tuple[str, ...] | None = None) -> torch.Tensor:
            task.costs.read("teachers", len(some))
            return task.original.to_logits(states(task.original, some, active=active, precision=task.precision))

        before = logits()
        student.start_at(adapter, scale)
        while kl_divergence(before, logits(student.active)).item() > self.reach:
            scale /= 2
            student.start_at(adapter, scale)

    def _sampled(self, forget: int) -> int:
        return max(SAMPLED, math.ceil(self.sample * forget))

    def _log_teacher(self, task: Task, forgetting: ForgettingTeacher) -> None:
        """The teacher's own loss and AUC on D_f: what it overshoots, no student can mend."""
        with task.costs.phase("watching"):
            unseen = predict(task.original, task.unseen, precision=task.precision)
            task.sight("teacher", forgetting.odds().cpu().numpy(), unseen.odds)
