"""Teachers as targets: computed once, kept as answer-position states, never written to disk."""

from dataclasses import dataclass, replace

import torch

from .losses import TeacherSpace, forgetting_teacher
from .metrics import Ints, auc
from .models.answers import Verbaliser

Head = tuple[torch.Tensor, torch.Tensor | None]


def _logits(states: torch.Tensor, head: Head) -> torch.Tensor:
    """Logits in float32, as the models' own: autocast would round them, and copy the whole head at each step."""
    with torch.autocast(states.device.type, enabled=False), torch.no_grad():
        return torch.nn.functional.linear(states, *head)


@dataclass(frozen=True)
class FrozenTeacher:
    """A model's answers as they are. The original's on D_r are E2URec's remembering teacher.

    Attributes:
        states: (n, d) answer-position states of the model; rows that no step reads may hold anything.
        head: its output head, weight (V, d) and bias (V,) or None.
    """

    states: torch.Tensor
    head: Head

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
        answers: the two answer tokens.
    """

    original: torch.Tensor
    augmented: torch.Tensor
    head: Head
    augmented_head: Head
    alpha: float
    space: TeacherSpace
    answers: Verbaliser

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Target logits of `rows`: (b,) → (b, V)."""
        return forgetting_teacher(
            _logits(self.original[rows], self.head),
            _logits(self.augmented[rows], self.augmented_head),
            self.alpha,
            self.space,
            self.answers,
        )

    def matching(self, labels: Ints, target: float, *, most: float = 4.0) -> "ForgettingTeacher":
        """The same teacher with the least α ≤ `most` at which its own AUC on D_f is down to `target`.

        A teacher that overshoots ruins the student: one whose AUC is that of rows which nobody was tuned on asks
        for no more than forgetting. AUC falls as α grows, so the interval is halved until it is 1/256 wide.
        """
        low, high = 0.0, 1.0
        while high < most and self._auc(labels, high) > target:
            low, high = high, 2 * high
        while high - low > 1 / 256:
            middle = (low + high) / 2
            low, high = (middle, high) if self._auc(labels, middle) > target else (low, middle)
        return replace(self, alpha=high)

    def _auc(self, labels: Ints, alpha: float) -> float:
        return auc(labels, replace(self, alpha=alpha).odds().cpu().numpy())

    def odds(self, chunk: int = 256) -> torch.Tensor:
        """The teacher's own log-odds on all of D_f, (n,): scored before any student step is made."""
        rows = torch.arange(len(self.original), device=self.original.device)
        return torch.cat([self.answers.log_odds(self(part)) for part in torch.split(rows, chunk)])
