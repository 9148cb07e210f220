"""The verbaliser: which tokens stand for *Yes* and which for *No*, according to the tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import torch
from jinja2 import TemplateError
from pydantic import AfterValidator, Field

from ..core.errors import ModelError
from .output_head import OutputHead

Forms = tuple[str, ...]
"""All that an answer may be written as: *Yes*, *Yes.*, or the upper grades of a scale."""

# The words that the published prompts ask for.
ANSWERS: tuple[Forms, Forms] = (("Yes",), ("No",))
SPACED_ANSWERS: tuple[Forms, Forms] = ((" Yes",), (" No",))

Tokens = int | tuple[int, ...]
"""One token, or several that mean the same."""
Prefix = tuple[Annotated[int, Field(ge=0)], ...]
"""Tokens before an answer, as records have them."""


def _require_distinct(answers: tuple[Tokens, Tokens]) -> tuple[Tokens, Tokens]:
    """Raise ValueError for an answer without a token, or a token that is named twice."""
    yes, no = map(_as_tuple, answers)
    if not yes or not no:
        raise ValueError("an answer has no token; give one or more for each of the two")
    if min(*yes, *no) < 0:
        raise ValueError("a token is negative; give tokens of the vocabulary")
    if len({*yes, *no}) < len(yes) + len(no):
        raise ValueError("a token is named twice; name each for one of the two answers")
    return answers


AnswerTokens = Annotated[tuple[Tokens, Tokens], AfterValidator(_require_distinct)]
"""Tokens of liked and of not liked, as records have them."""


def _as_tuple(tokens: Tokens) -> tuple[int, ...]:
    return (tokens,) if isinstance(tokens, int) else tuple(tokens)


@dataclass(frozen=True)
class Verbaliser:
    """Token ids of the two answers at the answer position.

    An answer may be any of several tokens, and its probability is the sum of theirs. The output
    head puts it onto the first of them; see `OutputHead.sets`. So all that reads logits reads the
    two tokens `yes` and `no`.

    Attributes:
        yes: of *Yes*.
        no: of *No*.
        prefix: what an encoder-decoder's decoder writes before either of them: nothing (T5), the
            beginning of a text (BART) or its language (mBART).
        more_yes: further tokens that mean *Yes*.
        more_no: further tokens that mean *No*.
    """

    yes: int
    no: int
    prefix: tuple[int, ...] = ()
    more_yes: tuple[int, ...] = ()
    more_no: tuple[int, ...] = ()

    @classmethod
    def of(cls, answers: tuple[Tokens, Tokens], prefix: Sequence[int] = ()) -> Self:
        """The verbaliser that a record describes; `tokens_of_answers` is the way back."""
        (yes, *more_yes), (no, *more_no) = map(_as_tuple, answers)
        return cls(yes, no, tuple(prefix), tuple(more_yes), tuple(more_no))

    @property
    def tokens_of_answers(self) -> tuple[Tokens, Tokens]:
        """Tokens of liked and of not liked: a number where there is one alone."""
        yes, no = self.all_tokens
        return (yes if self.more_yes else self.yes, no if self.more_no else self.no)

    @property
    def all_tokens(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """All that mean *Yes*, and all that mean *No*."""
        return (self.yes, *self.more_yes), (self.no, *self.more_no)

    @property
    def sets(self) -> tuple[tuple[int, ...], ...]:
        """The answers that are more than one token."""
        return tuple(tokens for tokens in self.all_tokens if len(tokens) > 1)

    def log_odds(self, logits: torch.Tensor) -> torch.Tensor:
        """Return `z_yes − z_no`, the log-odds of P(Yes) / (P(Yes) + P(No)): (b, V) → (b,).

        Args:
            logits: of the model's own head, which has put the tokens of an answer together.
        """
        return logits[:, self.yes] - logits[:, self.no]

    def log_odds_of(self, states: torch.Tensor, head: OutputHead) -> torch.Tensor:
        """Return the log-odds that follow from answer-position states: (b, d) → (b,), in float32.

        Only the head's rows of the two answers are multiplied.
        """
        yes_tokens, no_tokens = self.all_tokens
        with torch.no_grad():
            answer_head = head.of_tokens([*yes_tokens, *no_tokens])
            z = answer_head.logits(states)
            if not self.sets:
                yes, no = z.unbind(1)
                return yes - no
            yes_count = len(yes_tokens)
            return z[:, :yes_count].logsumexp(1) - z[:, yes_count:].logsumexp(1)

    def require_within(self, vocabulary: int, name: str) -> None:
        """Raise ModelError for a token that model `name`, of so many tokens, does not have."""
        yes, no = self.all_tokens
        last = max(*yes, *no, *self.prefix)
        if last >= vocabulary:
            raise ModelError(
                f"model '{name}': has {vocabulary:,} tokens, and token {last} is said to be of an "
                "answer; name those of this model in model.answers and model.prefix"
            )

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
    answers: tuple[Forms, Forms] | None = None,
    chat: bool = False,
) -> Verbaliser:
    """Return the first token of each form of each answer in its context.

    For a decoder that is the first token of `prompt + " Yes"` after the prompt's own (" Yes" is not
    "Yes"); for an encoder-decoder the first token in which the target texts differ.

    Args:
        tokenizer: the model's.
        prompts: the contexts.
        seq2seq: whether the model is an encoder-decoder.
        answers: all forms of liked and of not, as they follow a prompt; None: Yes and No, after a
            space where they follow the prompt itself.
        chat: whether a prompt is what a user says in a chat.

    Raises:
        ModelError: the answers share a first token, or a prompt is tokenised otherwise once an
            answer follows it.
    """
    name = getattr(tokenizer, "name_or_path", "?")
    if answers is None:
        answers = ANSWERS if seq2seq else SPACED_ANSWERS
    if seq2seq:
        return _find_in_targets(tokenizer, answers, name)
    token_rows = set()
    if chat:
        prompts = [_as_chat(tokenizer, prompt) for prompt in prompts]
    forms = [*answers[0], *answers[1]]
    for prompt in prompts:
        tokens = [_token_after(tokenizer, prompt, form, special=not chat) for form in forms]
        token_rows.add(tuple(tokens))
    if len(token_rows) != 1:
        raise ModelError(
            f"tokenizer '{name}': the answers' tokens depend on the prompt; use another template, "
            "or prompts that all end alike"
        )
    (first_tokens,) = token_rows
    liked_count = len(answers[0])
    return _verbaliser(first_tokens[:liked_count], first_tokens[liked_count:], name)


def _verbaliser(
    yes: Sequence[int], no: Sequence[int], name: str, prefix: Sequence[int] = ()
) -> Verbaliser:
    """That of the tokens of each form; forms may share one, the two answers may not."""
    shared_tokens = sorted({*yes} & {*no})
    if shared_tokens:
        raise ModelError(
            f"tokenizer '{name}': the answers share their first token ({shared_tokens[0]}); "
            "use a model whose tokenizer tells them apart"
        )
    yes, no = (tuple(map(int, dict.fromkeys(tokens))) for tokens in (yes, no))
    return Verbaliser.of((yes, no), prefix)


def _find_in_targets(tokenizer: Any, answers: tuple[Forms, Forms], name: str) -> Verbaliser:
    """The first tokens in which an encoder-decoder's target texts differ."""
    yes_rows, no_rows = (_target_rows(tokenizer, forms) for forms in answers)
    shortest = min(map(len, [*yes_rows, *no_rows]))
    for place in range(shortest):
        yes = [row[place] for row in yes_rows]
        no = [row[place] for row in no_rows]
        if len({*yes, *no}) > 1:
            return _verbaliser(yes, no, name, prefix=yes_rows[0][:place])
    raise ModelError(
        f"tokenizer '{name}': Yes and No have the same tokens; use a model whose tokenizer tells "
        "them apart"
    )


def _target_rows(tokenizer: Any, forms: Forms) -> list[list[int]]:
    return [tokenizer(text_target=form).input_ids for form in forms]


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
