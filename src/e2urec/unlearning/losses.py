"""The losses of the field, as functions of tensors. No models, no batches: logits in, scalars out.

`z` are answer-position logits over the whole vocabulary, (b, V), float32.
"""

from typing import Literal

import torch
import torch.nn.functional as F

from ..models.verbaliser import Verbaliser
from ..training.supervised import cross_entropy

__all__ = [
    "cross_entropy",
    "forgetting_teacher",
    "kl_divergence",
    "npo",
    "reduce_gain",
    "simnpo",
    "with_odds",
]

TeacherSpace = Literal["raw", "logprob", "odds"]


def kl_divergence(target: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """`KL(softmax(target) ‖ softmax(z))`, mean over rows: (b, V), (b, V) → scalar ≥ 0, in nats."""
    # `batchmean` divides by the rows; `mean` would divide by rows times tokens.
    return F.kl_div(
        z.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True
    )


def reduce_gain(original: torch.Tensor, augmented: torch.Tensor, alpha: float) -> torch.Tensor:
    """`δ_o − α·(δ_aug − δ_o)`: the log-odds of preset gain's forgetting teacher.

    A gain of one answer is a loss of the other, so there is no relu, and nothing drifts towards
    either answer.

    Args:
        original: δ_o (b,), the original's log-odds of Yes against No.
        augmented: δ_aug (b,), those of the original tuned further on the forget set.
        alpha: how much of the gain is taken off.

    Returns:
        δ_F (b,).
    """
    gain = augmented - original
    return original - alpha * gain


def forgetting_teacher(
    original: torch.Tensor,
    augmented: torch.Tensor,
    alpha: float,
    space: TeacherSpace,
    verbaliser: Verbaliser,
) -> torch.Tensor:
    """Logits of the forgetting teacher: the original less its gain from the data to be forgotten.

    - `raw`: `z_o − α·relu(z_aug − z_o)`, E2URec (arXiv 2403.03536). A constant added to one model's
      logits changes it.
    - `logprob`: the same on log-softmax, where no such constant exists.
    - `odds`: `reduce_gain` on the log-odds of the two answers alone. The mass on {Yes, No} and all
      other tokens stay the original's.

    Args:
        original: z_o (b, V).
        augmented: z_aug (b, V) of the original tuned further on the forget set.
        alpha: how much of the gain is taken off.
        space: where the gain is measured.
        verbaliser: the two answer tokens.

    Returns:
        z_F (b, V); its softmax is the teacher's distribution.
    """
    # Raw logits have a free constant in each row, log-probabilities have none.
    if space != "raw":
        original = original.log_softmax(-1)
        augmented = augmented.log_softmax(-1)
    if space == "odds":
        original_odds = verbaliser.log_odds(original)
        augmented_odds = verbaliser.log_odds(augmented)
        odds = reduce_gain(original_odds, augmented_odds, alpha)
        return with_odds(original, odds, verbaliser)
    gain = F.relu(augmented - original)
    return original - alpha * gain


def with_odds(z: torch.Tensor, odds: torch.Tensor, verbaliser: Verbaliser) -> torch.Tensor:
    """Log-probabilities of `z` with other log-odds of Yes against No.

    The mass on both answers together and all other tokens stay as they are: logits (b, V), log-odds
    (b,) → (b, V).
    """
    yes = verbaliser.yes
    no = verbaliser.no
    log_probs = z.log_softmax(-1)
    answer_mass = torch.logaddexp(log_probs[:, yes], log_probs[:, no])
    # log σ(δ) and log σ(−δ) are the logs of the answers' shares of their mass.
    log_probs[:, yes] = answer_mass + F.logsigmoid(odds)
    log_probs[:, no] = answer_mass + F.logsigmoid(-odds)
    return log_probs


def npo(
    z: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor, beta: float
) -> torch.Tensor:
    """`−(2/β)·mean log σ(−β·log(p_θ(y) / p_o(y)))`, NPO.

    Zhang et al. 2024, arXiv 2404.05868, eq. 3.
    As β → 0 its gradient is that of ascent on the cross-entropy; a larger β stops pushing once the
    answer is unlikely.

    Args:
        z: (b, V) of the model.
        reference: (b, V) of the original.
        tokens: answer tokens y (b,).
        beta: β > 0.

    Returns:
        Scalar ≥ 0.
    """
    log_probs = z.log_softmax(-1)
    reference_log_probs = reference.log_softmax(-1)
    log_ratios = log_probs - reference_log_probs
    columns = tokens[:, None]
    answer_log_ratios = log_ratios.gather(1, columns)
    terms = F.logsigmoid(-beta * answer_log_ratios)
    return -2 / beta * terms.mean()


def simnpo(z: torch.Tensor, tokens: torch.Tensor, beta: float, delta: float) -> torch.Tensor:
    """`−(2/β)·mean log σ(β·(NLL − δ))`, SimNPO (Fan et al. 2024, arXiv 2410.07163).

    NPO without a reference, for answers of one token.

    Args:
        z: (b, V) of the model.
        tokens: answer tokens y (b,); NLL = −log p_θ(y) in nats.
        beta: β > 0.
        delta: δ in nats, the margin that the loss of a row is held against.

    Returns:
        Scalar ≥ 0.
    """
    answer_losses = F.cross_entropy(z, tokens, reduction="none")
    margins = answer_losses - delta
    terms = F.logsigmoid(beta * margins)
    return -2 / beta * terms.mean()
