"""The losses of the field, as functions of tensors. No models, no batches: logits in, scalars out.

`z` are answer-position logits over the whole vocabulary, (b, V), float32.
"""

from typing import Literal

import torch
import torch.nn.functional as F

from ..models.verbaliser import Verbaliser
from ..training.supervised import cross_entropy

__all__ = ["cross_entropy", "forgetting_teacher", "kl_divergence", "npo", "simnpo", "with_odds"]

TeacherSpace = Literal["raw", "logprob", "odds"]


def kl_divergence(target: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """`KL(softmax(target) ‖ softmax(z))`, mean over rows: (b, V), (b, V) → scalar ≥ 0, in nats."""
    return F.kl_div(
        z.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True
    )


def forgetting_teacher(
    original: torch.Tensor,
    augmented: torch.Tensor,
    alpha: float,
    space: TeacherSpace,
    verbaliser: Verbaliser,
) -> torch.Tensor:
    """Logits of the forgetting teacher: the original less what the model gains from the data to be forgotten.

    - `raw`: `z_o − α·relu(z_aug − z_o)`, E2URec (arXiv 2403.03536). A constant added to one model's logits
      changes it.
    - `logprob`: the same on log-softmax, where no such constant exists.
    - `odds`: on the log-odds δ of the two answers alone, with no relu: `δ_o − α·(δ_aug − δ_o)`; the mass on
      {Yes, No} and all other tokens stay the original's. A gain of one answer is a loss of the other, so
      nothing drifts towards either.

    Args:
        original: z_o (b, V).
        augmented: z_aug (b, V) of the original tuned further on the forget set.
        alpha: how much of the gain is taken off.
        space: where the gain is measured.
        verbaliser: the two answer tokens.

    Returns:
        z_F (b, V); its softmax is the teacher's distribution.
    """
    if space == "raw":
        return original - alpha * F.relu(augmented - original)
    original, augmented = original.log_softmax(-1), augmented.log_softmax(-1)
    if space == "logprob":
        return original - alpha * F.relu(augmented - original)
    odds = verbaliser.log_odds(original)
    return with_odds(original, odds - alpha * (verbaliser.log_odds(augmented) - odds), verbaliser)


def with_odds(z: torch.Tensor, odds: torch.Tensor, verbaliser: Verbaliser) -> torch.Tensor:
    """Log-probabilities with log-odds (b,) of Yes against No; all other tokens keep theirs: (b, V) → (b, V)."""
    changed = z.log_softmax(-1)
    mass = torch.logaddexp(changed[:, verbaliser.yes], changed[:, verbaliser.no])
    changed[:, verbaliser.yes] = mass + F.logsigmoid(odds)
    changed[:, verbaliser.no] = mass + F.logsigmoid(-odds)
    return changed


def npo(
    z: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor, beta: float
) -> torch.Tensor:
    """`−(2/β)·mean log σ(−β·log(p_θ(y) / p_o(y)))`, NPO (Zhang et al. 2024, arXiv 2404.05868, eq. 3).

    z and the original's `reference` (b, V), answer tokens y (b,) → scalar ≥ 0. As β → 0 its gradient is that of
    ascent on the cross-entropy; a larger β stops pushing once the answer is unlikely.
    """
    gained = (z.log_softmax(-1) - reference.log_softmax(-1)).gather(1, tokens[:, None])
    return -2 / beta * F.logsigmoid(-beta * gained).mean()


def simnpo(z: torch.Tensor, tokens: torch.Tensor, beta: float, delta: float) -> torch.Tensor:
    """`−(2/β)·mean log σ(β·(NLL − δ))`, SimNPO (Fan et al. 2024, arXiv 2410.07163), for answers of one token.

    NPO without a reference: z (b, V), answer tokens y (b,) → scalar ≥ 0, NLL = −log p_θ(y) in nats.
    """
    losses = F.cross_entropy(z, tokens, reduction="none")
    return -2 / beta * F.logsigmoid(beta * (losses - delta)).mean()
