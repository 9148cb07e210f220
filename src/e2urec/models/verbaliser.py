"""The verbaliser: which token stands for *Yes* and which for *No*, asked from the tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..core.errors import ModelError

OutputHead = tuple[torch.Tensor, torch.Tensor | None]
"""A model's output head: weight (V, d) and bias (V,) or None."""


@dataclass(frozen=True)
class Verbaliser:
    """Token ids of the two answers at the answer position."""

    yes: int
    no: int

    def log_odds(self, logits: torch.Tensor) -> torch.Tensor:
        """`z_yes − z_no`, the log-odds of P(Yes) / (P(Yes) + P(No)): (b, V) → (b,)."""
        return logits[:, self.yes] - logits[:, self.no]

    def log_odds_of(self, states: torch.Tensor, head: OutputHead) -> torch.Tensor:
        """The same from answer-position states, by the head's two rows alone: (b, d) → (b,), in float32."""
        pair = [self.yes, self.no]
        weight, bias = head[0][pair], None if head[1] is None else head[1][pair]
        with torch.autocast(states.device.type, enabled=False), torch.no_grad():
            answers = torch.nn.functional.linear(states.float(), weight, bias)
            return answers[:, 0] - answers[:, 1]

    def tokens(self, labels: torch.Tensor) -> torch.Tensor:
        """Answer token of each label: (b,) of 0/1 → (b,) of token ids."""
        return torch.where(labels.bool(), self.yes, self.no)


def prompt_ids(tokenizer: Any, texts: Sequence[str], *, seq2seq: bool) -> list[list[int]]:
    """Tokenise prompts; a decoder's prompt stays open for the answer, so it has no end-of-text token."""
    encoded: list[list[int]] = tokenizer(list(texts), add_special_tokens=True).input_ids
    if seq2seq:
        return encoded
    end = tokenizer.eos_token_id
    return [ids[:-1] if len(ids) > 1 and ids[-1] == end else ids for ids in encoded]


def find_verbaliser(tokenizer: Any, prompts: Sequence[str], *, seq2seq: bool) -> Verbaliser:
    """Return the first token of each answer in its context.

    For a decoder that is the first token of `prompt + " Yes"` after the prompt's own (" Yes" is not "Yes");
    for an encoder-decoder the first token of the target text.

    Raises:
        ModelError: the answers share their first token, or a prompt is tokenised otherwise once an answer
            follows it.
    """
    name = getattr(tokenizer, "name_or_path", "?")
    found = set()
    for prompt in prompts:
        pair = []
        for answer in ("Yes", "No"):
            if seq2seq:
                pair.append(tokenizer(text_target=answer).input_ids[0])
                continue
            before, after = prompt_ids(tokenizer, [prompt, f"{prompt} {answer}"], seq2seq=False)
            if after[: len(before)] != before or len(after) == len(before):
                raise ModelError(
                    f"tokenizer '{name}': the answer '{answer}' changes the tokens of the prompt before it; "
                    "use a template that ends in a full token, such as a question mark"
                )
            pair.append(after[len(before)])
        found.add(tuple(pair))
    if len(found) != 1:
        raise ModelError(
            f"tokenizer '{name}': the answers' tokens depend on the prompt; use another template"
        )
    yes, no = found.pop()
    if yes == no:
        raise ModelError(
            f"tokenizer '{name}': Yes and No share their first token ({yes}); use a model whose tokenizer "
            "tells them apart"
        )
    return Verbaliser(int(yes), int(no))
