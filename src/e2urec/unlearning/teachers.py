"""Teachers as targets: computed once, kept as answer-position states, never written to disk."""

from dataclasses import dataclass, replace

import torch

from ..core.arrays import Ints
from ..metrics.classification import auc
from ..models.predictions import LiveStates
from ..models.verbaliser import OutputHead, Verbaliser
from .losses import TeacherSpace, forgetting_teacher, with_odds

States = torch.Tensor | LiveStates
"""Answer-position states (n, d), looked up by row: computed before, or at each look-up."""


def _logits(states: torch.Tensor, head: OutputHead) -> torch.Tensor:
    """Logits in float32, as the models' own: autocast would round them, and copy the whole head at each step."""
    with torch.autocast(states.device.type, enabled=False), torch.no_grad():
        return torch.nn.functional.linear(states, *head)


@dataclass(frozen=True)
class FrozenTeacher:
    """A model's answers as they are. The original's on D_r are E2URec's remembering teacher.

    Attributes:
        states: (n, d) answer-position states of the model.
        head: its output head, weight (V, d) and bias (V,) or None.
        rows: (m,) rows that it was asked about; the states of all others may be anything.
    """

    states: States
    head: OutputHead
    rows: torch.Tensor

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Target logits of `rows`: (b,) → (b, V)."""
        return _logits(self.states[rows], self.head)


@dataclass(frozen=True)
class ForgettingTeacher:
    """The original on D_f less what the augmented model gained there; see `losses.forgetting_teacher`.

    Attributes:
        original: (n, d) states of the original on D_f.
        augmented: (n, d) states of the original tuned further on D_f.
        head: output head of the original.
        augmented_head: that of the augmented model; the same one unless it was fully tuned.
        alpha: weight of the gain.
        space: where the gain is measured.
        verbaliser: the two answer tokens.
    """

    original: States
    augmented: States
    head: OutputHead
    augmented_head: OutputHead
    alpha: float
    space: TeacherSpace
    verbaliser: Verbaliser

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Target logits of `rows`: (b,) → (b, V)."""
        original = _logits(self.original[rows], self.head)
        if self.space == "odds":  # asks no more of the augmented model than its two answers
            return with_odds(original, self._odds(rows), self.verbaliser)
        augmented = _logits(self.augmented[rows], self.augmented_head)
        return forgetting_teacher(original, augmented, self.alpha, self.space, self.verbaliser)

    def matching(self, labels: Ints, target: float, *, most: float = 4.0) -> "ForgettingTeacher":
        """The same teacher with the least α ≤ `most` at which its own AUC on D_f is down to `target`.

        A teacher that overshoots ruins the student: one whose AUC is that of rows which nobody was tuned on asks
        for no more than forgetting. AUC falls as α grows, so the interval is halved until it is 1/256 wide. In
        every space the log-odds are a straight line in α: two points give them all.
        """
        start, end = (replace(self, alpha=alpha).odds().cpu().numpy() for alpha in (0.0, 1.0))

        def above(alpha: float) -> bool:
            return auc(labels, start + alpha * (end - start)) > target

        low, high = 0.0, 1.0
        while high < most and above(high):
            low, high = high, 2 * high
        while high - low > 1 / 256:
            middle = (low + high) / 2
            low, high = (middle, high) if above(middle) else (low, middle)
        return replace(self, alpha=high)

    def odds(self, chunk: int = 256) -> torch.Tensor:
        """The teacher's own log-odds on all of D_f, (n,): scored before any student step is made."""
        parts = torch.split(torch.arange(len(self.original), device=self.head[0].device), chunk)
        if self.space == "odds":
            return torch.cat([self._odds(part) for part in parts])
        return torch.cat([self.verbaliser.log_odds(self(part)) for part in parts])

    def _odds(self, rows: torch.Tensor) -> torch.Tensor:
        """`δ_o − α·(δ_aug − δ_o)`: (b,) → (b,)."""
        own, gained = (
            self.verbaliser.log_odds_of(states[rows], head)
            for states, head in ((self.original, self.head), (self.augmented, self.augmented_head))
        )
        return own - self.alpha * (gained - own)
