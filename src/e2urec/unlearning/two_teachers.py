"""The settings of E2URec, and what they say of a request: solved for or trained, and how long."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from ..core.errors import ConfigError
from ..models.adapters import LoRA
from ..training.schedule import OptimizerSettings, Schedule
from .gauss_newton import GaussNewton, obstacle_to_solving
from .losses import TeacherSpace
from .method import Method
from .replay import Speed
from .scaling import Scaling, may_scale
from .student import steps_in
from .task import RequestScores

# What only the teacher of an augmented model's gain reads.
OF_THE_GAIN = (
    "alpha",
    "teacher",
    "augment",
    "augment_passes",
    "augment_rate",
    "augment_min_steps",
    "start_scale",
    "max_retain_kl",
)
# What each forgetting teacher does not read: set, it would do nothing.
UNREAD: Mapping[str, tuple[str, ...]] = {
    "gain": ("strength", "denoise", "solving"),
    "scores": OF_THE_GAIN,
    "margin": (*OF_THE_GAIN, "denoise"),
}

# The preset that has all other settings of a forgetting teacher.
PRESET_OF = {"margin": "default", "scores": "scores", "gain": "gain"}

# What only a student that is trained reads.
TRAINING_SETTINGS = (
    "strength",
    "remember",
    "warmup",
    "joint",
    "final",
    "learning_rate",
    "min_lr_ratio",
    "batch_size",
    "min_steps",
    "optimizer",
)


class TwoTeachers(Method):
    """The settings; `methods/e2urec.py` says what they do."""

    forgetting: Literal["margin", "scores", "gain"] = Field(
        "margin",
        description="forgetting teacher: the original less the margin that tuning gives a row's "
        "answer in the mean, led towards out-of-fold scores, which the run must have, or less what "
        "an augmented model gains on D_f",
    )
    strength: float = Field(
        16.0, gt=0, description="a: how far the teacher goes along the way to models without D_f"
    )
    denoise: bool = Field(
        True,
        description="whether out-of-fold scores teach without their noise, which two half models "
        "a row and more tell",
    )
    alpha: float | Literal["auto"] = Field(
        "auto",
        description="how much of the gain on D_f the forgetting teacher takes off; auto: as much "
        "as lowers its AUC on D_f by what tuning is worth to the original, which is its AUC on "
        "D_r less that on users it was not tuned on",
    )
    teacher: TeacherSpace = Field("odds", description="space of the gain: raw, logprob or odds")
    augment: Literal["adapter", "full"] = Field(
        "adapter", description="augmented model: an adapter, or a full copy"
    )
    augment_passes: float = Field(2.0, gt=0, description="passes over D_f of the augmented model")
    augment_rate: float = Field(2e-3, gt=0, description="learning rate of the augmented model")
    # On a small request, after 16 steps the augmented model had learned little but how often D_f
    # says Yes, and the start moved D_r by 1.0 nat; after 32 steps it moved D_r by 0.03.
    augment_min_steps: int = Field(
        32, ge=1, description="fewest steps of the augmented model, however few rows D_f has"
    )
    start_scale: float = Field(
        0.0, ge=0, description="s: the start is −s·α times the augmented adapter; 0: the original"
    )
    max_retain_kl: float = Field(
        0.1,
        gt=0,
        description="most that the start may move D_r, in nats of L_REM; else s is halved",
    )
    warmup: float = Field(0.0, ge=0, description="passes over D_f with L_FGT alone before joint")
    joint: float = Field(2.0, ge=0, description="passes over D_f with L_FGT and L_REM together")
    final: float = Field(0.0, ge=0, description="passes over D_f with L_FGT alone after joint")
    beta: float = Field(
        0.3, ge=0, le=1, description="weight of L_FGT beside L_REM, which has 1 − beta"
    )
    remember: Literal["kl", "kl+ce"] = Field(
        "kl", description="remembering loss: KL to the original, or KL + CE"
    )
    learning_rate: float = Field(5e-3, gt=0, description="highest learning rate of the student")
    min_lr_ratio: float = Field(
        0.1, ge=0, le=1, description="last learning rate of a phase as a share of the highest"
    )
    batch_size: int = Field(
        8, ge=1, description="rows of D_f a step, and of D_r in the joint phase"
    )
    min_steps: int = Field(
        16, ge=1, description="fewest steps of each student phase, however few rows D_f has"
    )
    lora: LoRA = Field(LoRA(targets="all"), description="adapter of student and augmented model")
    scaling: Scaling = Field(
        Scaling(), description="how far the finished student is taken to reach its target"
    )
    solving: GaussNewton = Field(
        GaussNewton(), description="how a student is solved for, by scores or margins"
    )
    calibration_ratio: float = Field(
        1.0,
        gt=0,
        description="rows of D_r and of calibration users that the target is measured on, a "
        "multiple of D_f",
    )
    optimizer: OptimizerSettings = Field(
        OptimizerSettings(), description="how AdamW takes the steps of augmented model and student"
    )
    speed: Speed = Field(Speed(), description="ways to the same result with less work")

    @model_validator(mode="after")
    def _every_setting_is_read(self) -> Self:
        unread = [name for name in UNREAD[self.forgetting] if self._is_changed(name)]
        if unread:
            settings = ", ".join(self._named(name) for name in unread)
            readers = [name for name, others in UNREAD.items() if not set(unread) & set(others)]
            # Another teacher alone would not read what else the preset sets.
            presets = [PRESET_OF[reader] for reader in readers]
            other = f", or take preset {' or '.join(presets)}" if presets else ""
            raise ConfigError(
                f"method 'e2urec': forgetting={self.forgetting} does not read {settings}; leave "
                f"that out{other}"
            )
        return self

    @model_validator(mode="after")
    def _start_needs_an_adapter(self) -> Self:
        if self.start_scale and self.augment == "full":
            raise ConfigError(
                f"method 'e2urec': start_scale={self.start_scale} needs augment='adapter'; "
                "set start_scale to 0"
            )
        return self

    @classmethod
    def is_of_the_gain(cls, settings: Mapping[str, Any]) -> bool:
        """Whether some settings ask for what only the teacher of a gain reads."""
        fields = cls.model_fields
        return any(
            settings.get(name, fields[name].default) != fields[name].default for name in OF_THE_GAIN
        )

    def _is_changed(self, name: str) -> bool:
        """Whether a setting asks for something."""
        value = getattr(self, name)
        # Not to solve for a student is what a gain's teacher does anyway.
        is_off = name == "solving" and not value.below
        return not is_off and bool(value != type(self).model_fields[name].default)

    def _named(self, name: str) -> str:
        """`name=value`; of a setting of parts, those that are not as usual."""
        value = getattr(self, name)
        if not isinstance(value, BaseModel):
            return f"{name}={value}"
        usual = type(self).model_fields[name].default
        parts = [f"{name}.{part}={own}" for part, own in value if own != getattr(usual, part)]
        return ", ".join(parts)

    @classmethod
    def readable(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """A record's settings without those that its teacher does not read."""
        left_out = UNREAD.get(settings.get("forgetting", ""), ())
        return {name: value for name, value in settings.items() if name not in left_out}

    def check_scores(self, scores: RequestScores | None) -> None:
        """Raise ConfigError where `forgetting=scores`, and a row of D_f has no score."""
        if self.forgetting != "scores":
            return
        if scores is None:
            raise ConfigError(
                "method 'e2urec': forgetting=scores needs out-of-fold scores, which this run "
                "lacks; make them by e2urec prepare, or do without by --preset default"
            )
        # An earlier request wrote their prompts anew, and their scores were erased with the old
        # ones; or their items have other titles by now.
        missing_count = int((~scores.forget.present).sum())
        if missing_count:
            of_prompts = " of their present prompts" if scores.stale else ""
            raise ConfigError(
                "method 'e2urec': forgetting=scores needs out-of-fold scores, and "
                f"{missing_count} of {len(scores.forget.mean)} rows of D_f have none{of_prompts}; "
                "make them anew by e2urec prepare, or do without by --preset default"
            )

    @property
    def needs_target(self) -> bool:
        """Whether it must be known how much to forget."""
        return self.forgetting != "gain" or self.alpha == "auto" or self.scaling.largest > 0

    def is_solved(self, forget: int) -> bool:
        """Whether a student that forgets so many rows is solved for, and not trained."""
        return self.forgetting != "gain" and forget < self.solving.below

    def trained(self) -> Self:
        """The same method, whose students are all trained."""
        return self.model_copy(update={"solving": GaussNewton(below=0)})

    def suited(self, forget: int, retain: int, lm: Any) -> Self:
        """The same method, whose students are trained where so many rows cannot be solved for."""
        if self.is_solved(forget) and self.obstacle(forget, retain, lm):
            return self.trained()
        return self

    def obstacle(self, forget: int, retain: int, lm: Any) -> str:
        """Why a student of so many rows cannot be solved for, in a sentence; empty: it can."""
        row_count = self.solved_count(forget, retain)
        return obstacle_to_solving(lm, self.lora, self.solving, row_count)

    def solved_count(self, forget: int, retain: int) -> int:
        """Rows that a student is solved for: all of D_f, and those of D_r that are held."""
        return forget + self.solving.held_count(forget, retain)

    def regime(self, forget: int) -> tuple[bool, bool]:
        """Whether so many rows are solved for, and whether their student goes to the lead."""
        return self.is_solved(forget), may_scale(self.scaling, forget)

    def lead_scaling(self, forget: int) -> Scaling:
        """How far a student of so many rows may be taken to lose the lead."""
        if not self.is_solved(forget) or not self.scaling.largest:
            return self.scaling
        return self.scaling.model_copy(update={"largest": self.solving.largest})

    def unread(self, forget: int) -> Sequence[str]:
        """What a student that is trained does not read, or one that is solved for."""
        return TRAINING_SETTINGS if self.is_solved(forget) else ("solving",)

    def teacher_strength(self, forget: int) -> float:
        """a: how far along the way to models without D_f the teacher asks for."""
        return self.solving.strength if self.is_solved(forget) else self.strength

    def unread_sentence(self, forget: int) -> str:
        """What was asked of training, where the student is solved for; empty where nothing was."""
        unread = [self._named(name) for name in TRAINING_SETTINGS if self._is_changed(name)]
        if not unread:
            return ""
        return (
            f"D_f has {forget} rows, fewer than {self.solving.below}, so the student was solved "
            f"for, and {', '.join(unread)} not read; set solving.strength, or solving.below=0."
        )

    def updates(self, forget: int, retain: int, schedule: Schedule) -> int:
        """Steps of the student in all its phases, as if it were trained.

        A placebo takes as many. It cannot be solved for, and what so few steps as solving takes
        leave undone would say nothing.
        """
        steps = self.student_steps(forget)
        return sum(steps.values())

    def augmented_steps(self, forget: int) -> int:
        """Steps that make the augmented model."""
        passes = self.augment_passes
        return steps_in(passes, forget, self.batch_size, self.augment_min_steps)

    def student_steps(self, forget: int) -> dict[str, int]:
        """Steps of each phase: passes over D_f, and not too few in a phase that is not empty."""
        passes = {"warmup": self.warmup, "joint": self.joint, "final": self.final}
        return {
            phase: steps_in(count, forget, self.batch_size, self.min_steps)
            for phase, count in passes.items()
        }
