"""A recommender: a language model that answers *Yes* or *No* to a prompt.

The answer is read at one position, the one after the prompt.
"""

import contextlib
import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..core.arrays import Ints
from ..core.errors import ModelError, RunError
from ..core.process import first_process
from ..data.prompts import PromptTemplate
from ..data.samples import Samples
from ..data.templating import find_template
from . import adapter_files, adapters, blocks, stored_weights
from .backbone import Backbone, load_backbone
from .batches import Batch, Examples, batches_by_length, collate, pack
from .card import Card
from .fsdp import refuse_split
from .output_head import OutputHead, join_tokens, logit_scale, output_head
from .positions import check_window
from .quantisation import weight_count
from .shortcuts import check_replay, check_shortcuts
from .tokens import PromptReader, tokenise
from .verbaliser import Verbaliser, find_verbaliser, prompt_ids

# Any prompt that ends as the templates do shows how a tokenizer treats the answer after it.
SAMPLE_PROMPT = "Liked: Toy Story (1995). Disliked: none. Will the user like Heat (1995)?"


class Recommender(nn.Module):
    """A backbone with a prompt template; `score` gives each row's P(Yes) / (P(Yes) + P(No)).

    Attributes:
        lm: the language model, with or without adapters.
        tokenizer: its tokenizer.
        name: the name or folder of the backbone.
        seq2seq: whether it is an encoder-decoder.
        pad: token id that fills a batch.
        template: writes the prompts.
        active: the adapters that make it this recommender; none for a fully tuned model.
        window: longest prompt in tokens.
        verbaliser: the tokens of the two answers.
        stored_dtype: in which somebody else's model came; None: it is ours, in float32.
        answer_only: whether the last block computes the answer's position alone, in what no other
            position is read from.
        block_forms: what each block that reads the prompt returns; see `blocks.record_outputs`.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: PromptTemplate,
        *,
        active: Sequence[str] = (),
        window: int = 512,
    ) -> None:
        """Read the answers' tokens off the tokenizer, and check the shortcuts to the logits.

        Raises:
            ModelError: the answers share a token or have one that the model lacks, the window is
                beyond its positions, or its logits are not what its head makes of its states.
        """
        super().__init__()
        self.lm = backbone.lm
        self.tokenizer = backbone.tokenizer
        self.name = backbone.name
        self.seq2seq = backbone.seq2seq
        self.pad = backbone.pad
        self.template = template
        self.active = tuple(active)
        self.window = window
        check_window(self.lm, self.name, window)
        self._own_answers = backbone.verbaliser is not None
        self.verbaliser: Verbaliser = backbone.verbaliser or find_verbaliser(
            self.tokenizer, [SAMPLE_PROMPT], seq2seq=self.seq2seq
        )
        self.verbaliser.require_within(self.head.weight.shape[0], self.name)
        self.stored_dtype: str | None = None
        self.answer_only = not self.seq2seq
        with self.using():
            self.block_forms = check_shortcuts(self, self._sample_tokens())

    @property
    def backbone(self) -> Backbone:
        """The language model as it is now, with its tokenizer and answers."""
        answers = self.verbaliser if self._own_answers else None
        return Backbone(self.lm, self.tokenizer, self.name, answers)

    @property
    def prompt_reader(self) -> PromptReader:
        """How it reads prompts; whoever holds that does not hold the model."""
        return PromptReader(self.template, self.tokenizer, self.seq2seq)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return torch.device(next(self.lm.parameters()).device)

    @property
    def head(self) -> OutputHead:
        """The output head; it gives float32 logits whatever its own precision."""
        return output_head(self.lm)._replace(sets=self.verbaliser.sets)

    @property
    def state_width(self) -> int:
        """Width d of the states between blocks; in a few families not that of the last state."""
        return int(self.lm.config.get_text_config().hidden_size)

    def using(
        self, active: Sequence[str] | None = None, *, train: str | None = None
    ) -> AbstractContextManager[Any]:
        """Inside, the adapters `active` take part; see `adapters.using_adapters`.

        Args:
            active: names of adapters; by default this recommender's own.
            train: the one adapter to train.
        """
        names = self.active if active is None else active
        return adapters.using_adapters(self.lm, names, train=train)

    def encode(self, samples: Samples) -> Examples:
        """Tokenise the prompts of `samples`."""
        return tokenise(
            samples, self.template, self.tokenizer, seq2seq=self.seq2seq, window=self.window
        )

    def encode_texts(self, prompts: Sequence[str]) -> Examples:
        """Tokenise prompts that the caller wrote; their labels and users are unknown, and 0."""
        rows = prompt_ids(self.tokenizer, prompts, seq2seq=self.seq2seq, chat=self.template.chat)
        unknown = np.zeros(len(prompts), dtype=np.int8)
        return pack(rows, unknown, unknown, window=self.window)

    def collate(self, examples: Examples, index: Ints) -> Batch:
        """Pad rows `index` into a batch on the model's device."""
        # Another model's states would give its answers.
        if examples.cached and examples.cached.model is not self:
            examples = replace(examples, cached=None)
        return collate(examples, index, self.pad).to(self.device)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Return the final state at each row's answer position, (b, d).

        `head` is applied to it. Blocks whose result `batch.cached` holds are skipped.
        """
        cached_states = self._cached_states(batch)
        answer_states: list[torch.Tensor] = []

        def gather(states: torch.Tensor) -> torch.Tensor:
            rows = torch.arange(len(states), device=states.device)
            answer_states.append(states[rows, self._answer_position(batch)])
            # The model goes on with the logits of no position, which cost nothing.
            return states.new_zeros(len(rows), 0, head.weight.shape[0])

        # The head itself would compute (b, t, V) logits, of which one position of each row is
        # needed, and under autocast it would copy all its weights.
        head = self.lm.get_output_embeddings()
        with contextlib.ExitStack() as shortcuts:
            shortcuts.enter_context(blocks.forward_instead(head, gather))
            if self.answer_only:
                shortcuts.enter_context(blocks.answer_only(self.lm, batch.position))
            if cached_states is not None:
                lower_forms = self.block_forms[: batch.first_block]
                shortcuts.enter_context(blocks.replay_states(self.lm, cached_states, lower_forms))
            self.lm(**self._inputs(batch))
        return answer_states[0] * logit_scale(self.lm)

    def plain_logits(self, batch: Batch) -> torch.Tensor:
        """Return what `logits` does by the model's own forward pass, without a shortcut: (b, V)."""
        logits = self.lm(**self._inputs(batch)).logits
        rows = torch.arange(len(logits), device=logits.device)
        at_answer: torch.Tensor = logits[rows, self._answer_position(batch)]
        return join_tokens(at_answer.float(), self.verbaliser.sets)

    def can_replay(self, first_block: int) -> bool:
        """Whether the blocks from `first_block` on need no more than that block's input."""
        with self.using():
            return check_replay(self, self._sample_tokens(), first_block)

    def recomputable_blocks(self) -> list[nn.Module]:
        """The blocks that are trained, or above one, and compute the same in every pass."""
        stack = list(blocks.stack(self.lm))
        # What the last block computes depends on the pass.
        if self.answer_only:
            stack.pop()
        for number, block in enumerate(stack):
            if any(parameter.requires_grad for parameter in block.parameters()):
                return stack[number:]
        return []

    def states_before(self, batch: Batch, first_block: int) -> torch.Tensor:
        """Return the input of block `first_block`, (b, t, d): what `Batch.cached` holds."""
        return blocks.states_before(self.lm, first_block, self._inputs(batch))

    # What is cached has no gradient either: nothing trainable lies below `first_block`.
    @torch.no_grad()
    def _cached_states(self, batch: Batch) -> torch.Tensor | None:
        """`batch.cached`, with the states of rows that it lacks computed; None where it is None."""
        if batch.cached is None or batch.is_cached is None:
            return batch.cached
        is_missing = ~batch.is_cached
        missing_rows = replace(batch, ids=batch.ids[is_missing], mask=batch.mask[is_missing])
        states = batch.cached.clone()
        states[is_missing] = self.states_before(missing_rows, batch.first_block).to(states.dtype)
        return states

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return the answer-position logits of all tokens, (b, V), float32 even under autocast."""
        return self.to_logits(self.hidden(batch))

    forward = logits

    def to_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the output head in float32, outside autocast: (b, d) → (b, V)."""
        return self.head.logits(hidden)

    @torch.no_grad()
    def score(
        self, samples: Samples | Examples, *, batch_size: int = 64
    ) -> npt.NDArray[np.float32]:
        """Return P(Yes) / (P(Yes) + P(No)) of each row, (n,) float32, in the order of the rows.

        The arithmetic is float32, whatever the precision of training.
        """
        examples = samples if isinstance(samples, Examples) else self.encode(samples)
        scores = np.zeros(len(examples), dtype=np.float32)
        with self.using():
            for index in batches_by_length(examples.lengths, batch_size):
                batch = self.collate(examples, index)
                log_odds = self.verbaliser.log_odds(self.logits(batch))
                scores[index] = log_odds.sigmoid().cpu().numpy()
        return scores

    def copy(self) -> "Recommender":
        """Return a recommender with weights of its own, in float32, so that they can be tuned."""
        refuse_split(self.lm, "a copy of the recommender")
        whole = copy.deepcopy(self)
        stored_weights.widen(whole.lm)
        return whole

    def copy_adapters(self) -> "Recommender":
        """Return a recommender with adapters of its own on the same frozen weights.

        Of a fully tuned one it is a whole copy.
        """
        if not self.active:
            return self.copy()
        refuse_split(self.lm, "a copy of the recommender")
        return copy.deepcopy(self, adapters.shared_weights(self.lm))

    def parameter_count(self) -> int:
        """Number of parameters, adapters included; a tied head counts once."""
        return sum(weight_count(parameter) for parameter in self.lm.parameters())

    def save(self, folder: Path) -> None:
        """Write the model to `folder`, with `recommender.json` beside it.

        A bare model goes to `model/`, which `transformers` alone loads; the first of several
        processes writes it. Of base + LoRA the adapter goes to `adapter/`, which `peft` loads on
        the base that is named in its config.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self.active:
            # A folder holds one adapter: whoever adds others merges or concatenates them first.
            (name,) = self.active
            adapter_files.save_adapter(self.lm, name, folder / "adapter")
        elif first_process():
            self.lm.save_pretrained(str(folder / "model"))
            self.tokenizer.save_pretrained(str(folder / "model"))
        card = Card(
            template=self.template.name,
            window=self.window,
            base=self.name,
            template_source=self.template.source,
            answers=self.verbaliser.tokens_of_answers if self._own_answers else None,
            prefix=self.verbaliser.prefix if self._own_answers else (),
            dtype=self.stored_dtype,
        )
        card.write(folder)

    @classmethod
    def load(cls, folder: Path, base: Backbone | None = None) -> "Recommender":
        """Load what `save` wrote.

        Args:
            folder: the folder given to `save`.
            base: the base of a saved adapter, which is used up; a bare model needs none.

        Raises:
            RunError: the folder holds no recommender, or its adapter comes without a base.
            DataError: its template is none.
            ModelError: its weights are not those of one.
        """
        card = Card.read(folder)
        template = find_template(card.template, card.template_source)
        active: tuple[str, ...] = ()
        if (folder / "model").is_dir():
            backbone = load_backbone(folder / "model", exact=True)
        elif base is None:
            raise RunError(
                f"'{folder}': holds an adapter; give the base model '{card.base}' with it"
            )
        else:
            lm = adapter_files.load_adapter(base.lm, folder / "adapter", "original")
            backbone = replace(base, lm=lm)
            active = ("original",)
        backbone = replace(backbone, verbaliser=card.verbaliser)
        model = cls(backbone, template, active=active, window=card.window)
        model.stored_dtype = card.dtype
        return model

    def _sample_tokens(self) -> list[int]:
        return prompt_ids(self.tokenizer, [SAMPLE_PROMPT], seq2seq=self.seq2seq)[0]

    def _answer_position(self, batch: Batch) -> torch.Tensor:
        """Column of the answer among the positions that the head sees, (b,)."""
        if not self.seq2seq:
            return batch.position
        # A decoder of its own sees what comes before the answer, and nothing of the prompt.
        return torch.full_like(batch.position, len(self.verbaliser.prefix))

    def decoder_tokens(self) -> list[int]:
        """What the decoder of an encoder-decoder is given: its start, and what comes before Yes."""
        start = self.lm.config.decoder_start_token_id
        if start is None:
            raise ModelError(
                f"model '{self.name}': has no decoder_start_token_id; set it in its config.json"
            )
        return [start, *self.verbaliser.prefix]

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
            "use_cache": False,
        }
        if self.seq2seq:
            before_answer = torch.tensor(self.decoder_tokens(), device=self.device)
            inputs["decoder_input_ids"] = before_answer.expand(len(batch.ids), -1)
        return inputs
