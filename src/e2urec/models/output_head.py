"""The output head: what turns the state at the answer's position into logits.

Some families scale or cap their logits after the head. Both stand in a model's config, and are
applied here as the model itself applies them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from .stored_weights import linear

# What families call it in their config. Logits are divided by the first, multiplied by the others.
DIVISOR = "logits_scaling"
FACTORS = ("logit_scale", "lm_head_multiplier")
CAPS = ("final_logit_softcapping", "logits_soft_cap")

# Its exponential is 0 even in float64, and unlike −∞ it has a difference with itself.
ABSENT = -1e4
"""Logit of a token that counts as another one."""


class OutputHead(NamedTuple):
    """A model's output head.

    Attributes:
        weight: (V, d), in the precision in which the model holds it.
        bias: (V,), or None.
        cap: c, if logits z become c·tanh(z / c) (Gemma 2, arXiv 2408.00118, section 2).
        sets: of tokens that mean the same answer, and count as one token, the first of the set.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    cap: float | None = None
    sets: tuple[tuple[int, ...], ...] = ()

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Apply the head in float32, outside autocast: (b, d) → (b, V).

        A head of fewer bits is widened a piece at a time, and never copied whole.
        """
        # In bf16 logits are so coarse that the scores of different rows tie. Autocast would also
        # copy the whole head at each step.
        with torch.autocast(states.device.type, enabled=False):
            z = linear(states.float(), self.weight, self.bias)
            if self.cap is not None:
                z = self.cap * torch.tanh(z / self.cap)
            return join_tokens(z, self.sets)

    def of_tokens(self, tokens: list[int]) -> "OutputHead":
        """The head of some of the tokens alone, in float32, each of them for itself."""
        bias = None if self.bias is None else self.bias[tokens]
        return OutputHead(self.weight[tokens].float(), bias, self.cap)

    def detach(self) -> "OutputHead":
        """The same head, through which no gradient flows."""
        bias = None if self.bias is None else self.bias.detach()
        return self._replace(weight=self.weight.detach(), bias=bias)


def join_tokens(z: torch.Tensor, sets: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits in which each set of tokens is one outcome: (b, V) → (b, V).

    The first token of a set gets `log Σ exp z` over the set, so that its probability is the sum of
    theirs, and the others get none.
    """
    for first, *further_tokens in sets:
        joint = z[:, [first, *further_tokens]].logsumexp(1, keepdim=True)
        places = torch.tensor([first, *further_tokens], device=z.device)
        z = z.index_copy(1, places[:1], joint)
        z = z.index_fill(1, places[1:], ABSENT)
    return z


def logit_scale(lm: Any) -> float:
    """What `lm` multiplies its logits by, after the head."""
    config = lm.config.get_text_config()
    scale = 1 / (getattr(config, DIVISOR, None) or 1.0)
    for name in FACTORS:
        scale *= getattr(config, name, None) or 1.0
    return float(scale)


def output_head(lm: Any) -> OutputHead:
    """The output head of `lm`, for states that are scaled by `logit_scale` already."""
    layer = lm.get_output_embeddings()
    bias = getattr(layer, "bias", None)
    # BART and its kin keep a bias of their own beside the head, (1, V).
    further_bias = getattr(lm, "final_logits_bias", None)
    if further_bias is not None:
        bias = further_bias[0] if bias is None else bias + further_bias[0]
    if bias is not None:
        bias = bias.float() * logit_scale(lm)
    config = lm.config.get_text_config()
    caps = [getattr(config, name, None) for name in CAPS]
    cap = next(filter(None, caps), None)
    return OutputHead(layer.weight, bias, cap)
