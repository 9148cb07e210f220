"""Teachers as targets: computed once, kept as answer-position states, never written to disk."""

from dataclasses import dataclass

import torch

from ..core.arrays import Floats, Ints
from ..models.batches import Batch
from ..models.output_head import OutputHead
from ..models.predictions import LiveStates
from ..models.verbaliser import Verbaliser
from . import losses
from .losses import TeacherSpace, kl_divergence


@dataclass(frozen=True)
class RowStates:
    """Answer-position states of some rows, looked up by the numbers of the rows.

    They are float32, as models give them: in fewer bits a teacher's log-odds would be rounded, by
    up to 1/256 of themselves in bf16.

    Attributes:
        states: (m, d) of the rows that a teacher was asked about.
        places: (n,) place of each row in `states`; −1 for one without, whose state may be any.
    """

    states: torch.Tensor
    places: torch.Tensor

    @classmethod
    def of_rows(cls, rows: torch.Tensor, states: torch.Tensor, count: int) -> "RowStates":
        """`states` (m, d) of `rows` (m,), out of `count` rows."""
        places = torch.full((count,), -1, device=rows.device)
        places[rows] = torch.arange(len(rows), device=rows.device)
        return cls(states, places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        return self.states[self.places[rows]]


# Answer-position states (n, d), looked up by row: computed before, or at each look-up. They are far
# smaller than logits over the whole vocabulary, which one product with the head gives back.
States = torch.Tensor | RowStates | LiveStates


@dataclass(frozen=True)
class AnsweredRows:
    """Some rows of a set, and what a model says of them.

    Attributes:
        rows: (m,) their numbers.
        odds: log-odds of Yes against No, (m,).
    """

    rows: Ints
    odds: Floats


@dataclass(frozen=True)
class FrozenTeacher:
    """A model's answers as they are. The original's on D_r are E2URec's remembering teacher.

    Attributes:
        states: answer-position states of the model, by the numbers of n rows.
        head: its output head.
        rows: (m,) rows that it was asked about; the states of all others may be anything.
    """

    states: States
    head: OutputHead
    rows: torch.Tensor

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Target logits of `rows`: (b,) → (b, V)."""
        with torch.no_grad():
            return self.head.logits(self.states[rows])

    def log_odds(self, rows: torch.Tensor, verbaliser: Verbaliser) -> torch.Tensor:
        """Log-odds of Yes against No on `rows`, by two rows of the head alone: (b,) → (b,)."""
        return verbaliser.log_odds_of(self.states[rows], self.head)

    def odds(self, verbaliser: Verbaliser) -> Floats:
        """Log-odds of Yes against No on all rows that it was asked about, (m,)."""
        log_odds = self.log_odds(self.rows, verbaliser)
        odds: Floats = log_odds.cpu().numpy()
        return odds

    def answered(self, verbaliser: Verbaliser) -> AnsweredRows:
        """The rows that it was asked about, and their log-odds."""
        return AnsweredRows(self.rows.cpu().numpy(), self.odds(verbaliser))


@dataclass(frozen=True)
class ScoreTeacher:
    """The original on D_f, with log-odds on the way to what models say that never saw the rows.

    All other tokens' answers stay the original's.

    Attributes:
        original: answers of the original to D_f.
        log_odds: `δ_F = δ_o + a·ŵ`, (n,); `expected_way` has ŵ.
        verbaliser: the two answer tokens.
    """

    original: FrozenTeacher
    log_odds: torch.Tensor
    verbaliser: Verbaliser

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Target logits of `rows`: (b,) → (b, V)."""
        return losses.with_odds(self.original(rows), self.log_odds[rows], self.verbaliser)

    def odds(self) -> Floats:
        """The teacher's own log-odds on all of D_f, (n,)."""
        odds: Floats = self.log_odds.cpu().numpy()
        return odds


@dataclass(frozen=True)
class ForgettingTeacher:
    """The original on D_f less what the augmented model gained there; see `losses`.

    Attributes:
        original: answers of the original to D_f.
        augmented: answers of the original tuned further on D_f.
        alpha: weight of the gain.
        space: where the gain is measured.
        verbaliser: the two answer tokens.
    """

    original: FrozenTeacher
    augmented: FrozenTeacher
    alpha: float
    space: TeacherSpace
    verbaliser: Verbaliser

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Target logits of `rows`: (b,) → (b, V)."""
        original = self.original(rows)
        if self.space == "odds":
            odds = self._reduced_odds(rows)
            # The other tokens' targets are the original's, so its logits are needed in full.
            return losses.with_odds(original, odds, self.verbaliser)
        return losses.forgetting_teacher(
            original,
            self.augmented(rows),
            self.alpha,
            self.space,
            self.verbaliser,
        )

    def odds(self, chunk: int = 256) -> Floats:
        """The teacher's own log-odds on all of D_f, (n,).

        They score the teacher before any student step is made.

        Args:
            chunk: rows at a time, since logits over the whole vocabulary are large.
        """
        chunks = torch.split(self.original.rows, chunk)
        if self.space == "odds":
            parts = [self._reduced_odds(rows) for rows in chunks]
        else:
            parts = [self.verbaliser.log_odds(self(rows)) for rows in chunks]
        odds: Floats = torch.cat(parts).cpu().numpy()
        return odds

    def _reduced_odds(self, rows: torch.Tensor) -> torch.Tensor:
        """Log-odds less the gain: (b,) → (b,)."""
        # Two rows of the head say all that is needed of the augmented model: its logits over the
        # whole vocabulary are never computed.
        verbaliser = self.verbaliser
        original = self.original.log_odds(rows, verbaliser)
        augmented = self.augmented.log_odds(rows, verbaliser)
        return losses.reduce_gain(original, augmented, self.alpha)


@dataclass(frozen=True)
class Teachers:
    """What the student learns from.

    Attributes:
        forgetting: on D_f, the original less its gain, or on the way to models without D_f.
        remembering: on D_r, the original.
        update: A and B matrices of ΔW; None if no adapter was tuned on D_f.
    """

    forgetting: ForgettingTeacher | ScoreTeacher
    remembering: FrozenTeacher
    update: dict[str, torch.Tensor] | None = None

    def forget_loss(self, z: torch.Tensor, batch: Batch) -> torch.Tensor:
        """`L_FGT = KL(p_F ‖ p_θ)`: the student's logits (b, V) on rows of D_f → scalar, in nats."""
        target = self.forgetting(batch.index)
        return kl_divergence(target, z)

    def remember_loss(self, z: torch.Tensor, batch: Batch) -> torch.Tensor:
        """`L_REM = KL(p_o ‖ p_θ)`: the student's logits (b, V) on rows of D_r → scalar, in nats."""
        target = self.remembering(batch.index)
        return kl_divergence(target, z)
