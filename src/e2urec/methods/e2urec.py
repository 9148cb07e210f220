"""E2URec: two teachers guide a small adapter (arXiv 2403.03536).

The student reads rows of D_f and of D_r, and moves only the adapter's θ to minimise

    L_FGT = KL(p_F ‖ p_θ)                    on D_f; p_F is p_o with δ_F in place of δ_o
    L_REM = KL(p_o ‖ p_θ)                    on D_r
    L     = β·L_FGT + (1 − β)·L_REM

where o is the original, and δ are log-odds of Yes against No. What the forgetting teacher says of a
row of D_f, δ_F, is told in one of three ways:

    default   δ_F = δ_o − a·c·(y − ȳ)            less the margin c that tuning gives an answer
    scores    δ_F = δ_o + a·ŵ                    on the way to models that never saw the row
    gain      δ_F = δ_o − α·(δ_aug − δ_o)        less what an augmented model gains on D_f

aug is the original tuned further on D_f by an adapter ΔW; `unlearning/expected_way.py` has c and ŵ.
With these the loss is solved for the student, as a sum of squares (`unlearning/gauss_newton.py`),
where it has numbers enough for so many rows, and their gradients fit into memory; else it is
trained. The finished student is multiplied until its AUC on D_f has lost the *lead*, what tuning on
rows is worth to the original, or, of fewer than 300 rows, is its teacher's
(`unlearning/scaling.py`).

Preset `gain` has the published teacher. It takes the least α at which the teacher's AUC on D_f has
lost the lead, and starts at −s·α·ΔW, which to first order in ΔW is the forgetting teacher already
(negated task vectors: Ilharco et al. 2023, arXiv 2212.04089). The published method (preset `paper`;
Frontiers of Computer Science 19(3), 2025) differs in these places; z are logits over the whole
vocabulary:

    |                    | published                          | preset gain                      |
    |--------------------|------------------------------------|----------------------------------|
    | forgetting teacher | z_F = z_o − α·relu(z_aug − z_o)    | δ_F above                        |
    | L_FGT              | KL(softmax(z_F) ‖ p_θ)             | KL(p_F ‖ p_θ)                    |
    | L_REM              | KL(p_o ‖ p_θ) + CE(y, p_θ)         | KL(p_o ‖ p_θ)                    |
    | α                  | 2                                  | auto: see above                  |
    | β                  | 0.4                                | 0.8                              |
    | start of θ         | at the original                    | −s·α·ΔW, s = 2 or less           |
    | augmented model    | a full copy, 1.48 passes at 5e-5   | an adapter, 2 passes at 2e-3     |
    | passes over D_f    | 1 of L_FGT alone, then 0.23 of L   | 0.5 of L                         |
    | learning rate      | constant                           | falls to a tenth                 |
    | adapter of θ       | on every block, dropout 0.05       | on the upper half, no dropout    |
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from ..core.arrays import Floats
from ..core.seeding import derive
from ..models.recommender import Recommender
from ..training.loop import Objective, Rows, Step
from ..training.schedule import Schedule
from ..unlearning.alpha_search import match_target
from ..unlearning.augmented import Augmentation, AugmentedModel, augmented_adapter, augmented_copy
from ..unlearning.expected_way import way_by_margin, way_by_scores
from ..unlearning.gauss_newton import (
    Solver,
    adapter_shapes,
    affordable_width,
    held_rows,
    hold_back,
    row_weights,
)
from ..unlearning.initial_step import shorter_start, start_student
from ..unlearning.outcome import unsure_lead
from ..unlearning.paired import Term, answer_loss, side_by_side
from ..unlearning.planned_rows import planned_rows
from ..unlearning.presets import PRESETS, SEARCH, SEARCH_SOLVED, SEARCH_TRAINED
from ..unlearning.replay import with_cached_blocks
from ..unlearning.retain_check import RetainCheck, teacher_of_some
from ..unlearning.scaling import may_scale, scale_student, scale_to_teacher
from ..unlearning.student import Student, frozen_teacher, phase_steps
from ..unlearning.target import target_by_calibration, target_by_scores
from ..unlearning.task import Task
from ..unlearning.teachers import (
    AnsweredRows,
    ForgettingTeacher,
    FrozenTeacher,
    ScoreTeacher,
    Teachers,
)
from ..unlearning.two_teachers import PRESET_OF, TwoTeachers


class E2URec(TwoTeachers):
    """Forget with two teachers: what strangers to D_f would say of it, and the original on D_r."""

    name: ClassVar[str] = "e2urec"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = SEARCH

    @classmethod
    def suited_preset(
        cls, settings: Mapping[str, Any], *, has_scores: bool, has_strangers: bool
    ) -> str:
        """That of the teacher which a setting names or is of; else the best that there is."""
        if "forgetting" in settings:
            # A teacher that there is not is refused when the method is built.
            return PRESET_OF.get(str(settings["forgetting"]), "default")
        if cls.is_of_the_gain(settings):
            return "gain"
        if has_scores:
            return "scores"
        # Strangers tell the margin.
        return "default" if has_strangers else "gain"

    @property
    def search_space(self) -> Mapping[str, tuple[Any, ...]]:
        """Values of the settings that forgetting teacher and student read."""
        if self.forgetting == "gain":
            return self.search
        return SEARCH_SOLVED if self.solving.below else SEARCH_TRAINED

    def plan(self, forget: int, retain: int, schedule: Schedule) -> dict[str, int]:
        """Rows read in each phase; the original's schedule has no part in it."""
        return planned_rows(self, forget, retain)

    def unlearn(self, task: Task) -> Recommender:
        """Return the merged model, or the original with one replacement adapter.

        Raises:
            ConfigError: `forgetting=scores`, and rows of D_f have no out-of-fold score.
        """
        self.check_scores(task.scores)
        forget_count = len(task.forget)
        if not self.is_solved(forget_count):
            return self._train(task)
        if obstacle := self.obstacle(forget_count, len(task.retain), task.original.lm):
            task.outcome.note(obstacle)
            return self.trained()._train(task)
        return self._solve(task)

    def _train(self, task: Task) -> Recommender:
        """Minimise β·L_FGT + (1 − β)·L_REM by AdamW."""
        forget_count = len(task.forget)
        student_seed = derive(task.seed, "student")
        counts = self.student_steps(forget_count)
        seed = derive(task.seed, "phases")
        phases = phase_steps(task, counts, self.batch_size, seed=seed, speed=self.speed)
        batches: dict[str, list[Rows]] = {
            "forget": [np.arange(forget_count)],
            "retain": [step["retain"] for step in phases["joint"]],
        }
        # Teachers and student all read these rows; the lower blocks compute them once.
        with (
            with_cached_blocks(task, self.lora, self.speed, batches) as cached_task,
            contextlib.ExitStack() as lifetime,
        ):
            teachers = self._make_teachers(cached_task, batches, lifetime)
            with Student(cached_task, self.lora, seed=student_seed) as student:
                self._start(cached_task, student, teachers)
                self._fit(cached_task, student, teachers, phases)
                forget_odds = teachers.forgetting.original.odds(task.original.verbaliser)
                self._scale(student, forget_odds, teachers.remembering)
                # An augmented adapter that is still there must go before the student is merged.
                lifetime.close()
                return student.finish()

    def _solve(self, task: Task) -> Recommender:
        """Minimise β·L_FGT + (1 − β)·L_REM without training; see `unlearning/gauss_newton.py`."""
        forget_count = len(task.forget)
        held = held_rows(task, self.solving.held_count(forget_count, len(task.retain)))
        batches: dict[str, list[Rows]] = {"forget": [np.arange(forget_count)], "retain": [held]}
        shapes = adapter_shapes(task.original.lm, self.lora)
        width = affordable_width(shapes, forget_count + len(held), self.solving.memory_gb)
        with (
            with_cached_blocks(task, self.lora, self.speed, batches) as cached_task,
            Student(cached_task, self.lora, seed=derive(task.seed, "student")) as student,
        ):
            with task.costs.phase("solving"):
                solver = Solver(student, self.solving, held, width)
            forget_odds, retain_odds = np.split(solver.odds, [forget_count])
            unseen_odds = task.log_original(forget_odds)
            with task.costs.phase("teachers"):
                retain = AnsweredRows(held, retain_odds)
                forget_target = self._teacher_odds(task, forget_odds, retain)
            task.log_teacher(forget_target, unseen_odds)
            with task.costs.phase("solving"):
                solver.solve(
                    np.concatenate([forget_target, retain_odds]),
                    row_weights(
                        np.concatenate([forget_odds, retain_odds]), forget_count, self.beta
                    ),
                )
                scale_to_teacher(student, self.scaling.largest, forget_odds, forget_target)
                remembering = teacher_of_some(cached_task)
                # One that is scaled to the lead is held back there; a request may take all users.
                if len(task.retain) and not self._scales_to_lead(task):
                    check = RetainCheck.sample(cached_task, remembering, "solving")
                    hold_back(student, check, self.scaling.max_retain_kl)
            task.outcome.is_solved = True
            task.log_phase("solved", task.original, active=student.active)
            self._scale(student, forget_odds, remembering)
            if sentence := self.unread_sentence(forget_count):
                task.outcome.note(sentence)
            return student.finish()

    def _make_teachers(
        self, task: Task, batches: Mapping[str, Sequence[Rows]], lifetime: contextlib.ExitStack
    ) -> Teachers:
        """Both teachers of the student; `lifetime` closes what they need to answer."""
        original = task.original
        precomputed = self.speed.kept_teachers
        with task.costs.phase("teachers"):
            remembering = frozen_teacher(
                original, task, task.retain, batches["retain"], precomputed=precomputed
            )
            original_answers = frozen_teacher(
                original, task, task.forget, batches["forget"], precomputed=precomputed
            )
        unseen_odds = task.log_original(original_answers.odds(original.verbaliser))
        if self.forgetting == "gain":
            teachers = self._teach_by_gain(task, original_answers, remembering, lifetime)
        else:
            teachers = self._teach_by_way(task, original_answers, remembering)
        task.log_teacher(teachers.forgetting.odds(), unseen_odds)
        return teachers

    def _teach_by_way(
        self, task: Task, original: FrozenTeacher, remembering: FrozenTeacher
    ) -> Teachers:
        """The forgetting teacher is on the way from the original to models that never saw D_f."""
        verbaliser = task.original.verbaliser
        with task.costs.phase("teachers"):
            retain = remembering.answered(verbaliser)
            teacher_odds = self._teacher_odds(task, original.odds(verbaliser), retain)
            log_odds = torch.from_numpy(teacher_odds).to(task.original.device)
        return Teachers(ScoreTeacher(original, log_odds, verbaliser), remembering)

    def _teacher_odds(self, task: Task, odds: Floats, retain: AnsweredRows) -> Floats:
        """The teacher's log-odds on D_f, (n,), from the original's (n,); the target is noted."""
        if self.forgetting == "scores":
            target = target_by_scores(task, odds, self.calibration_ratio)
            way = way_by_scores(task, odds, retain, denoise=self.denoise)
            # One that is trained stops before it has learnt what all rows share.
            way -= target.drift if self.is_solved(len(odds)) else 0
        else:
            target = target_by_calibration(task, odds, retain, self.calibration_ratio)
            way = way_by_margin(task, target.margin)
        task.outcome.target = target
        strength = self.teacher_strength(len(odds))
        teacher_odds: Floats = odds + np.float32(strength) * way
        return teacher_odds

    def _teach_by_gain(
        self,
        task: Task,
        original: FrozenTeacher,
        remembering: FrozenTeacher,
        lifetime: contextlib.ExitStack,
    ) -> Teachers:
        """The forgetting teacher is the original less what the augmented model gains on D_f."""
        verbaliser = task.original.verbaliser
        augmented = self._augment(task, lifetime)
        alpha = 1.0 if self.alpha == "auto" else self.alpha
        teacher = ForgettingTeacher(original, augmented.answers, alpha, self.teacher, verbaliser)
        if self.needs_target:
            with task.costs.phase("teachers"):
                retain = remembering.answered(verbaliser)
                task.outcome.target = target_by_calibration(
                    task, original.odds(verbaliser), retain, self.calibration_ratio
                )
        if self.alpha == "auto":
            with task.costs.phase("teachers"):
                teacher = match_target(teacher, task)
        task.outcome.alpha = teacher.alpha
        return Teachers(teacher, remembering, augmented.update)

    def _augment(self, task: Task, lifetime: contextlib.ExitStack) -> AugmentedModel:
        """Tune the original further on D_f."""
        augmentation = Augmentation(
            step_count=self.augmented_steps(len(task.forget)),
            schedule=task.schedule(
                self.batch_size, self.augment_rate, self.min_lr_ratio, self.optimizer
            ),
            seed=derive(task.seed, "augmented"),
            window=self.speed.window,
            precomputed=self.speed.kept_teachers,
        )
        if self.augment == "full":
            return augmented_copy(task, augmentation)
        return lifetime.enter_context(augmented_adapter(task, self.lora, augmentation))

    def _start(self, task: Task, student: Student, teachers: Teachers) -> None:
        """Put the student at −s·α·ΔW, or less far."""
        if teachers.update is None or not self.start_scale:
            return
        alpha = task.outcome.alpha
        assert alpha is not None, "a forgetting teacher with an update has an α"
        scale = -self.start_scale * alpha
        with task.costs.phase("teachers"):
            check = RetainCheck.sample(task, teachers.remembering, "teachers")
            start = start_student(student, teachers.update, scale, check, self.max_retain_kl)
        task.outcome.start_scale = start
        if start != scale:
            task.outcome.tell(shorter_start(start, self.max_retain_kl))
        task.log_phase("start", task.original, active=student.active)

    def _scales_to_lead(self, task: Task) -> bool:
        target = task.outcome.target
        is_sure = target is not None and target.is_sure
        return is_sure and may_scale(self.scaling, len(task.forget))

    def _scale(self, student: Student, forget_odds: Floats, remembering: FrozenTeacher) -> None:
        """Take the finished student as far as its target asks for, and say what is left."""
        task = student.task
        target = task.outcome.target
        if target is None:
            return
        if not target.is_sure:
            task.outcome.tell(unsure_lead(target))
            return
        scaling = self.lead_scaling(len(task.forget))
        with task.costs.phase("scaling"):
            is_multiplied = scale_student(student, scaling, remembering, forget_odds)
        # One that was not is logged as it was trained or solved for.
        if is_multiplied:
            task.log_phase("scaled", task.original, active=student.active)

    def _fit(
        self,
        task: Task,
        student: Student,
        teachers: Teachers,
        phases: Mapping[str, Sequence[Step]],
    ) -> None:
        """Warm up on L_FGT, train on β·L_FGT + (1 − β)·L_REM, and end on L_FGT."""
        terms: dict[str, list[Term]] = {
            "forget": [teachers.forget_loss],
            "retain": [teachers.remember_loss],
        }
        if self.remember == "kl+ce":
            terms["retain"].append(answer_loss(task))
        losses = side_by_side(task, terms, self.speed.together)
        weights = {"forget": self.beta, "retain": 1 - self.beta}
        objectives = {
            "warmup": Objective(losses),
            "joint": Objective(losses, weights),
            "final": Objective(losses),
        }
        schedule = task.schedule(
            self.batch_size, self.learning_rate, self.min_lr_ratio, self.optimizer
        )
        for phase, steps in phases.items():
            if not steps:
                continue
            student.fit(phase, steps, objectives[phase], schedule)
            task.log_phase(phase, task.original, active=student.active)
