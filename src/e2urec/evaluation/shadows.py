"""Shadow models: what models that never saw a row say of it.

A likelihood-ratio attack needs such answers (Carlini et al. 2022, the offline form with one pooled
variance), and a verdict without retrained models rests on them. Each shadow is an adapter on the
base, tuned on half of the users of D_r and of the unseen users. No shadow sees D_f: the adapters
may be kept in the run folder, while what they say of D_f is not.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..core.arrays import Floats, Mask
from ..core.locks import SharedFolder
from ..core.seeding import derive
from ..models.adapters import LoRA
from ..models.batches import Examples, concatenate
from ..models.fsdp import whole_weight
from ..models.predictions import predict
from ..models.recommender import Recommender
from ..training.loop import Phase, Progress, silent
from ..training.out_of_fold import halves
from ..training.supervised import Tuning, tune
from .shadow_folder import ShadowFolder


class Shadows(BaseModel):
    """How shadow models are made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    count: int = Field(
        8,
        ge=2,
        le=1000,
        multiple_of=2,
        description="shadow models, in pairs that are tuned on complementary halves of the users",
    )
    # An adapter learns at rates that would ruin a fully tuned model.
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of a shadow")
    lora: LoRA = Field(LoRA(targets="all"), description="adapter of a shadow")

    def tuning(self, original: Tuning) -> Tuning:
        """The original's schedule, with an adapter and its learning rate."""
        # No validation rows are read, so there is nothing to be patient about.
        changes = {"learning_rate": self.learning_rate, "patience": None}
        schedule = original.schedule.model_copy(update=changes)
        return Tuning(schedule=schedule, lora=self.lora)

    def row_count(self, retain: int, unseen: int, tuning: Tuning) -> int:
        """Rows that are read to train them all: what they cost."""
        epochs = tuning.schedule.epochs
        return self.count * epochs * (retain + unseen) // 2


@dataclass(frozen=True)
class ShadowScores:
    """Mean log-odds of the shadows that never saw a row, (n,) each.

    Attributes:
        forget: of D_f's rows. No shadow saw any of them, but only half of the shadows are averaged,
            as for the unseen users' rows: a mean over more would be less noisy, and the attack
            would detect that difference.
        unseen: of the unseen users' rows.
        spread: pooled standard deviation of one shadow's log-odds.
    """

    forget: Floats
    unseen: Floats
    spread: float


@dataclass(frozen=True)
class ShadowRows:
    """The rows of an attack.

    Attributes:
        retain: D_r, of which each shadow is tuned on half.
        unseen: the same of the unseen users, who are also the non-members.
        forget: D_f, the members: shadows are only asked about it.
    """

    retain: Examples
    unseen: Examples
    forget: Examples


@dataclass(frozen=True)
class ShadowFactory:
    """Trains the shadows of one request, or loads those that were kept.

    Attributes:
        untuned: the base as a recommender, before any user's data.
        tuning: the original's.
        shadows: how many, and how they are tuned.
        seed: of the halves and of each shadow.
        folder: where their adapters are kept, under a hash of all they depend on; None: nowhere.
        key: of that hash, up to 64 bytes. It is of rows, among other things: without a key whoever
            knows all of them but one could test a guess of that one.
        progress: told of each step.
        say: told of a shadow that was damaged, and is made anew, and when no more are kept.
    """

    untuned: Recommender
    tuning: Tuning
    shadows: Shadows
    seed: int
    folder: SharedFolder | None = None
    key: bytes = b""
    progress: Progress = silent
    say: Callable[[str], object] = lambda text: None

    def scores(self, rows: ShadowRows) -> ShadowScores:
        """What the shadows say of D_f and of the unseen users' rows, each of rows it never saw."""
        # D_f's users are halved too, though no shadow reads them: the halves say which shadows are
        # averaged for which row, as many for members as for non-members.
        users = np.concatenate([rows.retain.users, rows.unseen.users, rows.forget.users])
        inside = halves(users, self.shadows.count, seed=self.seed)
        edges = np.cumsum([len(rows.retain), len(rows.unseen)])
        in_retain, in_unseen, in_forget = np.split(inside, edges, axis=1)
        tuning = self.shadows.tuning(self.tuning)
        precision = tuning.schedule.precision

        forget_odds = []
        unseen_odds = []
        folder = self._folder_of(tuning, rows)
        for number in range(self.shadows.count):
            retain_half = rows.retain.take(np.flatnonzero(in_retain[number]))
            unseen_half = rows.unseen.take(np.flatnonzero(in_unseen[number]))
            train = concatenate([retain_half, unseen_half])
            model = self._shadow(number, tuning, train, folder)
            forget = predict(model, rows.forget, precision=precision)
            unseen = predict(model, rows.unseen, precision=precision)
            forget_odds.append(forget.log_odds)
            unseen_odds.append(unseen.log_odds)

        outside_forget = (np.stack(forget_odds), ~in_forget)
        outside_unseen = (np.stack(unseen_odds), ~in_unseen)
        return pool(outside_forget, outside_unseen)

    def _folder_of(self, tuning: Tuning, rows: ShadowRows) -> ShadowFolder | None:
        if self.folder is None:
            return None
        part = self._fingerprint(tuning, (rows.retain, rows.unseen))
        return ShadowFolder(self.folder, part, self.key, self.say)

    def _fingerprint(self, tuning: Tuning, parts: Sequence[Examples]) -> str:
        """Hash of all that the shadows depend on: the base's weights, the rows, the settings."""
        # By content, not by name: shadows are taken from the cache only if nothing has changed.
        untuned = self.untuned
        settings = [
            untuned.name,
            untuned.template.name,
            tuning.model_dump_json(),
            untuned.window,
            self.seed,
        ]
        digest = hashlib.blake2b(repr(settings).encode(), key=self.key, digest_size=16)
        for tensor in untuned.lm.state_dict().values():
            # NumPy knows no bfloat16.
            weights = whole_weight(tensor).cpu().contiguous().float().numpy()
            digest.update(weights.tobytes())
        for part in parts:
            for column in (part.tokens, part.offsets, part.labels, part.users):
                digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def _shadow(
        self, number: int, tuning: Tuning, train: Examples, folder: ShadowFolder | None
    ) -> Recommender:
        # The name is also that of the shadow's random stream: kept and unkept ones differ in it.
        name = "shadow" if folder is None else f"shadow {number:02}"
        phase = Phase(name, derive(self.seed, "shadow", number), self.progress)
        # An interrupted evaluation goes on with the shadows that were finished.
        model = None if folder is None else folder.load(number, self.untuned)
        if model is None:
            model, _ = tune(self.untuned, tuning, train, None, phase)
            if folder is not None:
                folder.save(number, model)
        return model


def pool(forget: tuple[Floats, Mask], unseen: tuple[Floats, Mask]) -> ShadowScores:
    """Mean and pooled spread of the answers of shadows that never saw a row.

    Args:
        forget: log-odds on D_f (shadows, n), and which shadow counts for which row (shadows, n):
            the same number of shadows for each row.
        unseen: the same on the unseen users' rows.
    """
    means = []
    squares = 0.0
    freedom = 0
    for odds, outside in (forget, unseen):
        totals = np.where(outside, odds, 0.0).sum(0)
        mean = totals / outside.sum(0)
        deviations = np.where(outside, odds - mean, 0.0)
        squares += float((deviations**2).sum())
        # Each row's mean takes one degree of freedom.
        freedom += int(outside.sum()) - odds.shape[1]
        means.append(mean)
    # Two shadows leave none: the attack then ranks by the difference alone.
    spread = float(np.sqrt(squares / freedom)) if freedom else 1.0
    forget_mean, unseen_mean = means
    return ShadowScores(forget_mean, unseen_mean, spread)
