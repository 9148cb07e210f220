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

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from ..core.arrays import Floats
from ..core.errors import ConfigError
from ..core.seeding import derive, stream
from ..metrics.classification import auc
from ..models.adapters import LoRA
from ..models.batches import Batch, Examples, endless, rows_read
from ..models.predictions import Live, predict, states
from ..models.recommender import Recommender
from ..models.verbaliser import OutputHead
from ..training.loop import Rows, Schedule, Step, fit
from ..training.supervised import supervised
from ..unlearning.losses import TeacherSpace, kl_divergence
from ..unlearning.method import Method
from ..unlearning.paired import Term, answer_loss, side_by_side
from ..unlearning.replay import Speed, replaying
from ..unlearning.student import Student, frozen, pairs
from ..unlearning.task import Task
from ..unlearning.teachers import ForgettingTeacher, FrozenTeacher, States

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

    states: States
    head: OutputHead
    adapter: dict[str, torch.Tensor] | None


class E2URec(Method):
    """Forget with two teachers: the original less its gain from D_f, and the original on D_r."""

    name: ClassVar[str] = "e2urec"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "alpha": 2.0,
            "teacher": "raw",
            "augment": "full",
            "augment_passes": 1.48,
            "augment_rate": 5e-5,
            "start_scale": 0.0,
            "warmup": 1.0,
            "joint": 0.232,
            "final": 0.0,
            "beta": 0.4,
            "remember": "kl+ce",
            "min_lr_ratio": 1.0,
            "min_steps": 1,
            "augment_min_steps": 1,
            "lora": {"rank": 16, "alpha": 32, "dropout": 0.05, "targets": "attention"},
        }
    }

    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "start_scale": (1.0, 2.0, 3.0, 4.0),
        "joint": (0.25, 0.5, 1.0),
        "beta": (0.6, 0.8, 0.9),
        "augment_passes": (1.0, 2.0, 3.0),
    }

    alpha: float | Literal["auto"] = Field(
        "auto",
        description="how much of the gain on D_f the forgetting teacher takes off; auto: until its AUC on D_f is "
        "the original's there less what tuning gives the original on D_r over rows of users it was not tuned on",
    )
    teacher: TeacherSpace = Field(
        "odds", description="where the gain is measured: raw, logprob or odds"
    )
    augment: Literal["adapter", "full"] = Field(
        "adapter", description="augmented model: an adapter, or a full copy"
    )
    augment_passes: float = Field(
        2.0, gt=0, description="passes over D_f that make the augmented model"
    )
    augment_rate: float = Field(2e-3, gt=0, description="learning rate of the augmented model")
    augment_min_steps: int = Field(
        32, ge=1, description="least steps that make it, however few rows D_f has"
    )
    start_scale: float = Field(
        2.0,
        ge=0,
        description="how many times α of the augmented adapter's update the student starts without; "
        "0: it starts as the original",
    )
    max_retain_kl: float = Field(
        0.1,
        gt=0,
        description="most that the start may move D_r, in nats of L_REM; it is halved until it does not",
    )
    warmup: float = Field(
        0.0, ge=0, description="passes over D_f with L_FGT alone, before the joint phase"
    )
    joint: float = Field(0.5, ge=0, description="passes over D_f with L_FGT and L_REM together")
    final: float = Field(
        0.0, ge=0, description="passes over D_f with L_FGT alone, after the joint phase"
    )
    beta: float = Field(
        0.8, ge=0, le=1, description="weight of L_FGT in the joint phase; L_REM has 1 − beta"
    )
    remember: Literal["kl", "kl+ce"] = Field(
        "kl", description="remembering loss: KL to the original, or KL + CE"
    )
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the student")
    min_lr_ratio: float = Field(
        0.1, ge=0, le=1, description="last learning rate of a phase as a share of the highest"
    )
    batch_size: int = Field(
        16, ge=1, description="rows of D_f (and of D_r, in the joint phase) a step"
    )
    min_steps: int = Field(
        16,
        ge=1,
        description="least steps of each of the student's phases, however few rows D_f has",
    )
    lora: LoRA = Field(LoRA(upper=0.5), description="adapter of student and augmented model")
    calibration_ratio: float = Field(
        1.0,
        gt=0,
        description="rows of D_r, and of the calibration users, that alpha=auto asks for each row of D_f",
    )
    speed: Speed = Field(Speed(), description="ways to the same result with less work")

    @model_validator(mode="after")
    def _start_needs_an_adapter(self) -> Self:
        if self.start_scale and self.augment == "full":
            raise ConfigError(
                f"method 'e2urec': start_scale={self.start_scale} needs augment='adapter'; set start_scale to 0"
            )
        return self

    def unlearn(self, task: Task) -> Recommender:
        """Forget `task.forget`; returns the merged model, or the original with one replacement adapter."""
        phases = self._phases(task)
        read: dict[str, list[Rows]] = {
            "forget": [np.arange(len(task.forget))],
            "retain": [step["retain"] for step in phases["joint"]],
        }
        with replaying(task, self.lora, self.speed, read) as task:
            return self._taught(task, phases, read)

    def _taught(
        self, task: Task, phases: dict[str, list[Step]], read: dict[str, list[Rows]]
    ) -> Recommender:
        """Make both teachers, then the student."""
        original, once = task.original, self.speed.kept_teachers
        with contextlib.ExitStack() as teachers:
            with task.costs.phase("teachers"):
                remembering = frozen(original, task, task.retain, read["retain"], once=once)
                known = frozen(original, task, task.forget, read["forget"], once=once)
            with task.costs.phase("logging"):
                unseen = predict(original, task.unseen, precision=task.precision).odds
                task.log_scores("original", odds_of(original, known), unseen)
            augmented = self._augmented(task, teachers)
            with task.costs.phase("teachers"):
                forgetting = self._forgetting(task, known, augmented, remembering)
            # its own loss and AUC on D_f: what the teacher overshoots, no student can mend
            task.log_scores("teacher", forgetting.odds().cpu().numpy(), unseen)

            def forget(z: torch.Tensor, batch: Batch) -> torch.Tensor:
                return kl_divergence(forgetting(batch.index), z)

            def remember(z: torch.Tensor, batch: Batch) -> torch.Tensor:
                return kl_divergence(remembering(batch.index), z)

            terms: dict[str, list[Term]] = {"forget": [forget], "retain": [remember]}
            if self.remember == "kl+ce":
                terms["retain"].append(answer_loss(task))
            objective = side_by_side(task, terms, self.speed.together)
            weights = {"joint": {"forget": self.beta, "retain": 1 - self.beta}}
            with Student(task, self.lora, seed=derive(task.seed, "student")) as student:
                if augmented.adapter and self.start_scale:
                    with task.costs.phase("teachers"):
                        self._start(
                            task,
                            student,
                            augmented.adapter,
                            -self.start_scale * forgetting.alpha,
                            remembering,
                        )
                    task.log_phase("start", original, active=student.active)
                for phase, steps in phases.items():
                    schedule = task.schedule(self.batch_size, self.learning_rate, self.min_lr_ratio)
                    student.fit(phase, steps, objective, schedule, weights.get(phase))
                    if steps:
                        task.log_phase(phase, original, active=student.active)
                teachers.close()
                return student.finish()

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """Rows read in each phase; a joint step reads a batch of D_f and one of D_r."""
        steps = self._steps(forget)
        rows = {phase: rows_read(count, forget, self.batch_size) for phase, count in steps.items()}
        retained = rows_read(steps["joint"], retain, self.batch_size)
        rows["joint"] += retained
        taught = min(retain, retained)
        rows["teachers"] = 2 * forget + taught
        if self.lora.upper < 1 and self.speed.replay:
            rows["cache"] = forget + taught
        if self.alpha == "auto":
            sampled = self._sampled(forget)
            rows["teachers"] += max(0, min(retain, sampled) - taught) + sampled
        if self.start_scale:
            rows["teachers"] += min(retain, CHECKED)
        return rows

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """Steps of the student in all its phases."""
        return sum(count for phase, count in self._steps(forget).items() if phase != "augmented")

    def _steps(self, forget: int) -> dict[str, int]:
        """Steps of each phase: passes over D_f, and not too few in a phase that is wanted at all."""
        one = math.ceil(forget / self.batch_size)
        steps = {"augmented": max(self.augment_min_steps, math.ceil(self.augment_passes * one))}
        for phase, passes in (
            ("warmup", self.warmup),
            ("joint", self.joint),
            ("final", self.final),
        ):
            steps[phase] = max(self.min_steps, math.ceil(passes * one)) if passes else 0
        return steps

    def _phases(self, task: Task) -> dict[str, list[Step]]:
        """Steps of each phase. Retain rows go round all of D_r before any is read twice: none is cut off."""
        count = {
            phase: steps
            for phase, steps in self._steps(len(task.forget)).items()
            if phase != "augmented"
        }
        seed = derive(task.seed, "phases")
        batches = endless(task.forget.lengths, self.batch_size, seed=seed, window=self.speed.window)
        return {
            phase: pairs(task, steps, self.batch_size, seed=seed, speed=self.speed)
            if phase == "joint"
            else [{"forget": next(batches)} for _ in range(steps)]
            for phase, steps in count.items()
        }

    def _augmented(self, task: Task, teachers: contextlib.ExitStack) -> Augmented:
        """Tune the original further on D_f and keep what the teacher needs: it never touches the disk.

        The model itself is let go of, unless `teachers` asks it anew at each step: then it lives as long as they do.
        """
        seed = derive(task.seed, "augmented")
        original, forget = task.original, task.forget
        schedule = task.schedule(self.batch_size, self.augment_rate, self.min_lr_ratio)
        batches = endless(forget.lengths, self.batch_size, seed=seed, window=self.speed.window)
        steps: list[Step] = [
            {"train": next(batches)} for _ in range(self._steps(len(forget))["augmented"])
        ]

        def answers(model: Recommender, active: tuple[str, ...]) -> States:
            if not self.speed.kept_teachers:
                return Live(model, forget, active, task.precision)
            with task.costs.phase("teachers"):
                task.costs.read("teachers", len(forget))
                return states(model, forget, active=active, precision=task.precision)

        if self.augment == "full":
            copy = original.copy()
            with task.costs.phase("augmented"):
                copy.lm.requires_grad_(True)
                trace = fit(
                    copy,
                    list(copy.lm.parameters()),
                    lambda epoch: steps,
                    supervised(copy, forget),
                    schedule,
                    seed=seed,
                    progress=task.progress,
                    phase="augmented",
                )
                task.costs.read("augmented", trace.rows)
            weight, bias = copy.head
            return Augmented(answers(copy, copy.active), (weight.detach(), bias), None)
        with contextlib.ExitStack() as alive:
            student = alive.enter_context(Student(task, self.lora, seed=seed, name="augmented"))
            student.fit("augmented", steps, supervised(original, forget), schedule)
            found = Augmented(answers(original, student.active), original.head, student.weights())
            if not self.speed.kept_teachers:
                teachers.push(alive.pop_all())
            return found

    def _forgetting(
        self, task: Task, known: FrozenTeacher, augmented: Augmented, remembering: FrozenTeacher
    ) -> ForgettingTeacher:
        """The teacher on D_f, with α as set or found."""
        answers, labels = task.original.verbaliser, task.forget.labels
        alpha = 0.0 if self.alpha == "auto" else self.alpha
        teacher = ForgettingTeacher(
            known.states, augmented.states, known.head, augmented.head, alpha, self.teacher, answers
        )
        if self.alpha != "auto":
            return teacher
        lead = self._lead(task, remembering)
        return teacher.matching(labels, auc(labels, teacher.odds().cpu().numpy()) - lead)

    def _lead(self, task: Task, remembering: FrozenTeacher) -> float:
        """By how much the original's AUC on rows it was tuned on exceeds that on rows of other users.

        How hard a group of users is shifts its AUC; a difference of differences leaves that out. What the
        remembering teacher was asked of D_r is not asked again.
        """
        original, count = task.original, self._sampled(len(task.forget))
        asked = remembering.rows.cpu().numpy()
        others = stream(task.seed, "alpha").permutation(
            np.setdiff1d(np.arange(len(task.retain)), asked)
        )
        outside = stream(task.seed, "outside").permutation(len(task.calibration))[:count]
        tuned = [odds_of(original, remembering)]

        def ask(rows: Examples) -> Floats:
            task.costs.read("teachers", len(rows))
            return predict(original, rows, precision=task.precision).odds

        if len(asked) < min(count, len(task.retain)):
            others = others[: count - len(asked)]
            tuned.append(ask(task.retain.take(others)))
            asked = np.concatenate([asked, others])
        calibration = task.calibration.take(outside)
        return auc(task.retain.labels[asked], np.concatenate(tuned)) - auc(
            calibration.labels, ask(calibration)
        )

    def _start(
        self,
        task: Task,
        student: Student,
        adapter: dict[str, torch.Tensor],
        scale: float,
        remembering: FrozenTeacher,
    ) -> None:
        """Put the student at `scale`·ΔW, or at half of it, a quarter…, until D_r moves by `max_retain_kl` at most.

        What a weak augmented model has learned is mostly how often D_f says Yes: many times that ruins all users.
        """
        original, retain = task.original, task.retain
        random = stream(task.seed, "start")
        if not len(remembering.rows):
            remembering = frozen(
                original, task, retain, [random.permutation(len(retain))[:CHECKED]]
            )
        rows = remembering.rows[
            torch.from_numpy(random.permutation(len(remembering.rows))[:CHECKED])
        ]
        some = retain.take(rows.cpu().numpy())

        def moved() -> float:
            task.costs.read("teachers", len(some))
            after = states(original, some, active=student.active, precision=task.precision)
            parts = zip(
                torch.split(rows, 16), torch.split(after, 16), strict=True
            )  # logits of a few rows at a time
            return sum(
                len(one) * kl_divergence(remembering(one), original.to_logits(h)).item()
                for one, h in parts
            ) / len(rows)

        student.start_at(adapter, scale)
        while moved() > self.max_retain_kl:
            scale /= 2
            student.start_at(adapter, scale)

    def _sampled(self, forget: int) -> int:
        return max(SAMPLED, math.ceil(self.calibration_ratio * forget))


def odds_of(model: Recommender, teacher: FrozenTeacher) -> Floats:
    """Log-odds of `model`, whose answers `teacher` keeps, on the rows it was asked about, (m,)."""
    return model.verbaliser.log_odds_of(teacher.states[teacher.rows], teacher.head).cpu().numpy()
