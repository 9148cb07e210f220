"""The verbaliser: which token stands for *Yes* and which for *No*, according to the tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError

from ..core.errors import ModelError
from .output_head import OutputHead

# The words that the published prompts ask for.
ANSWERS = ("Yes", "No")
SPACED_ANSWERS = (" Yes", " No")


@dataclass(frozen=True)
class Verbaliser:
    """Token ids of the two answers at the answer position.

    Attributes:
        yes: of *Yes*.
        no: of *No*.
        prefix: what an encoder-decoder's decoder writes before either of them: nothing (T5), the
            beginning of a text (BART) or its language (mBART).
    """

    yes: int
    no: int
    prefix: tuple[int, ...] = ()

    def log_odds(self, logits: torch.Tensor) -> torch.Tensor:
        """Return `z_yes − z_no`, the log-odds of P(Yes) / (P(Yes) + P(No)): (b, V) → (b,)."""
        return logits[:, self.yes] - logits[:, self.no]

    def log_odds_of(self, states: torch.Tensor, head: OutputHead) -> torch.Tensor:
        """Return the log-odds that follow from answer-position states: (b, d) → (b,), in float32.

        Only the head's rows of the two answers are multiplied.
        """
        with torch.no_grad():
            answer_head = head.of_tokens([self.yes, self.no])
            yes, no = answer_head.logits(states).unbind(1)
            return yes - no

    def tokens(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the answer token of each label: (b,) of 0/1 → (b,) of token ids."""
        return torch.where(labels.bool(), self.yes, self.no)


def prompt_ids(
    tokenizer: Any, texts: Sequence[str], *, seq2seq: bool, chat: bool = False
) -> list[list[int]]:
    """Tokenise prompts.

    A decoder's prompt stays open for the answer, so it has no end-of-text token. A chat is written
    by the tokenizer's own template, which brings all special tokens.

    Raises:
        ModelError: the tokenizer has no template for a chat.
    """
    if chat:
        texts = [_as_chat(tokenizer, text) for text in texts]
    return _ids(tokenizer, texts, seq2seq=seq2seq, special=not chat)


def _as_chat(tokenizer: Any, text: str) -> str:
    """What a model reads when a user says `text`, up to where it answers."""
    name = getattr(tokenizer, "name_or_path", "?")
    if tokenizer.chat_template is None:
        raise ModelError(
            f"tokenizer '{name}': has no template for a chat; leave out --chat, or use a model "
            "that was made for chats"
        )
    remedy = "leave out --chat, and write prompts out in the rows"
    if "strftime_now" in str(tokenizer.chat_template):
        raise ModelError(f"tokenizer '{name}': its form of a chat shows today's date; {remedy}")
    message = {"role": "user", "content": text}
    try:
        return str(
            tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        )
    except (TemplateError, ValueError, TypeError) as error:
        raise ModelError(
            f"tokenizer '{name}': its form of a chat cannot be written; {remedy}"
        ) from error


def _ids(tokenizer: Any, texts: Sequence[str], *, seq2seq: bool, special: bool) -> list[list[int]]:
    encoded: list[list[int]] = tokenizer(list(texts), add_special_tokens=special).input_ids
    # Without special tokens an end is a prompt's own, as in forms of a chat.
    if seq2seq or not special:
        return encoded
    end = tokenizer.eos_token
    open_prompts = []
    for text, ids in zip(texts, encoded, strict=True):
        has_end = bool(end) and text.endswith(end)
        open_prompts.append(ids if has_end else _without_end(ids, tokenizer.eos_token_id))
    return open_prompts


def _without_end(ids: list[int], end: int | None) -> list[int]:
    # An empty prompt may consist of the end alone; some token has to stay.
    if len(ids) > 1 and ids[-1] == end:
        return ids[:-1]
    return ids


def find_verbaliser(
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    seq2seq: bool,
    answers: tuple[str, str] | None = None,
    chat: bool = False,
) -> Verbaliser:
    """Return the first token of each answer in its context.

    For a decoder that is the first token of `prompt + " Yes"` after the prompt's own (" Yes" is not
    "Yes"); for an encoder-decoder the first token in which the target texts differ.

    Args:
        tokenizer: the model's.
        prompts: the contexts.
        seq2seq: whether the model is an encoder-decoder.
        answers: liked and not, as they follow a prompt; None: Yes and No, after a space where they
            follow the prompt itself.
        chat: whether a prompt is what a user says in a chat.

    Raises:
        ModelError: the answers share their first token, or a prompt is tokenised otherwise once an
            answer follows it.
    """
    name = getattr(tokenizer, "name_or_path", "?")
    if answers is None:
        answers = ANSWERS if seq2seq else SPACED_ANSWERS
    if seq2seq:
        return _find_in_targets(tokenizer, answers, name)
    token_pairs = set()
    if chat:
        prompts = [_as_chat(tokenizer, prompt) for prompt in prompts]
    for prompt in prompts:
        tokens = [_token_after(tokenizer, prompt, answer, special=not chat) for answer in answers]
        token_pairs.add(tuple(tokens))
    if len(token_pairs) != 1:
        raise ModelError(
            f"tokenizer '{name}': the answers' tokens depend on the prompt; use another template, "
            "or prompts that all end alike"
        )
    yes, no = token_pairs.pop()
    if yes == no:
        raise ModelError(
            f"tokenizer '{name}': the answers share their first token ({yes}); "
            "use a model whose tokenizer tells them apart"
        )
    return Verbaliser(int(yes), int(no))


def _find_in_targets(tokenizer: Any, answers: tuple[str, str], name: str) -> Verbaliser:
    """The first tokens in which an encoder-decoder's target texts differ."""
    yes_ids, no_ids = (tokenizer(text_target=answer).input_ids for answer in answers)
    for place, (yes, no) in enumerate(zip(yes_ids, no_ids, strict=False)):
        if yes != no:
            return Verbaliser(int(yes), int(no), prefix=tuple(yes_ids[:place]))
    raise ModelError(
        f"tokenizer '{name}': Yes and No have the same tokens; use a model whose tokenizer tells "
        "them apart"
    )


def _token_after(tokenizer: Any, prompt: str, answer: str, *, special: bool) -> int:
    """First token of `answer` after a decoder's `prompt`."""
    texts = [prompt, prompt + answer]
    before, after = _ids(tokenizer, texts, seq2seq=False, special=special)
    # An answer may merge with the prompt's last token. The model would then never see the prompt
    # that it is asked with.
    if after[: len(before)] != before or len(after) == len(before):
        name = getattr(tokenizer, "name_or_path", "?")
        raise ModelError(
            f"tokenizer '{name}': the answer '{answer.strip()}' changes the tokens of the prompt "
            "before it; end prompts in a full token, such as a question mark, and begin the answer "
            "with the space that follows it"
        )
    return after[len(before)]
