"""A recommender: a language model that answers *Yes* or *No* to a prompt, read at the answer position."""

import contextlib
import copy
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from ..core.arrays import Ints
from ..core.errors import DataError, ModelError, RunError
from ..data.prompts import PromptTemplate
from ..data.samples import Samples
from ..data.templating import find_template
from . import adapters, blocks
from .backbone import Backbone, load_backbone
from .batches import Batch, Examples, by_length, collate, pack
from .tokens import tokenise
from .verbaliser import Verbaliser, find_verbaliser, prompt_ids

PROBE = "Liked: Toy Story (1995). Disliked: none. Will the user like Heat (1995)?"


class Recommender(nn.Module):
    """A backbone with a prompt template; `score` gives P(Yes) / (P(Yes) + P(No)) a row.

    Attributes:
        lm: the language model, with or without adapters.
        active: the adapters that make it this recommender; none for a fully tuned model.
        answers: the tokens of the two answers.
        window: longest prompt in tokens.
        answer_only: whether the last block computes the answer's position alone where no other is read.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: PromptTemplate,
        *,
        active: Sequence[str] = (),
        window: int = 512,
    ) -> None:
        """Raise ModelError when the answers cannot be told apart, or the head is followed by other operations."""
        super().__init__()
        self.lm = backbone.lm
        self.tokenizer = backbone.tokenizer
        self.name = backbone.name
        self.seq2seq = backbone.seq2seq
        self.pad = backbone.pad
        self.template = template
        self.active = tuple(active)
        self.window = window
        self.verbaliser: Verbaliser = find_verbaliser(self.tokenizer, [PROBE], seq2seq=self.seq2seq)
        self.answer_only = not self.seq2seq
        self._check_head()

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return torch.device(next(self.lm.parameters()).device)

    @property
    def head(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The output head in float32: weight (V, d) and bias (V,) or None."""
        layer = self.lm.get_output_embeddings()
        bias = getattr(layer, "bias", None)
        return layer.weight.float(), None if bias is None else bias.float()

    def using(
        self, active: Sequence[str] | None = None, *, train: str | None = None
    ) -> AbstractContextManager[Any]:
        """Switch to `active` (default: this recommender's own adapters); see `adapters.active`."""
        return adapters.active(self.lm, self.active if active is None else active, train=train)

    def encode(self, samples: Samples) -> Examples:
        """Tokenise the prompts of `samples`."""
        return tokenise(
            samples, self.template, self.tokenizer, seq2seq=self.seq2seq, window=self.window
        )

    def encode_texts(self, prompts: Sequence[str]) -> Examples:
        """Tokenise prompts written by somebody else; their labels are not known and read 0."""
        unknown = np.zeros(len(prompts), dtype=np.int8)
        return pack(
            prompt_ids(self.tokenizer, prompts, seq2seq=self.seq2seq),
            unknown,
            unknown,
            window=self.window,
        )

    def collate(self, examples: Examples, index: Ints) -> Batch:
        """Pad rows `index` into a batch on the model's device."""
        if examples.cached and examples.cached.model is not self:
            examples = replace(examples, cached=None)
        return collate(examples, index, self.pad).to(self.device)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Final state at each row's answer position, (b, d): what the output head is applied to.

        The head stands aside: it would compute (b, t, V) logits of which one position a row is needed, and
        under autocast copy all its weights to do so. So do the blocks that `batch.cached` stands for.
        """
        caught: list[torch.Tensor] = []

        def gather(states: torch.Tensor) -> torch.Tensor:
            position = torch.zeros_like(batch.position) if self.seq2seq else batch.position
            caught.append(states[torch.arange(len(states), device=states.device), position])
            return states[:, :0]

        with contextlib.ExitStack() as shortcuts:
            shortcuts.enter_context(blocks.instead(self.lm.get_output_embeddings(), gather))
            if self.answer_only:
                shortcuts.enter_context(blocks.answer_only(self.lm, batch.position))
            if batch.cached is not None:
                shortcuts.enter_context(blocks.replayed(self.lm, batch.first_block, batch.cached))
            self.lm(**self._inputs(batch))
        return caught[0]

    def states_before(self, batch: Batch, first: int) -> torch.Tensor:
        """Input of block `first`, (b, t, d): what `batch.cached` holds of these rows from then on."""
        return blocks.states_before(self.lm, first, self._inputs(batch))

    def logits(self, batch: Batch) -> torch.Tensor:
        """Answer-position logits over the whole vocabulary, (b, V), in float32 even under autocast."""
        return self.to_logits(self.hidden(batch))

    forward = logits

    def to_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the output head in float32 outside autocast: (b, d) → (b, V). A bf16 head ties scores."""
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), *self.head)

    @torch.no_grad()
    def score(
        self, samples: Samples | Examples, *, batch_size: int = 64
    ) -> npt.NDArray[np.float32]:
        """P(Yes) / (P(Yes) + P(No)) of each row, (n,) float32, in float32 arithmetic; order as given."""
        examples = samples if isinstance(samples, Examples) else self.encode(samples)
        scores = np.zeros(len(examples), dtype=np.float32)
        with self.using():
            for index in by_length(examples.lengths, batch_size):
                odds = self.verbaliser.log_odds(self.logits(self.collate(examples, index)))
                scores[index] = odds.sigmoid().cpu().numpy()
        return scores

    def copy(self) -> "Recommender":
        """Return a recommender with weights of its own."""
        return copy.deepcopy(self)

    def parameter_count(self) -> int:
        """Parameters of the model, a tied head counted once, adapters included."""
        return sum(parameter.numel() for parameter in self.lm.parameters())

    def save(self, folder: Path) -> None:
        """Write `model/` (a bare model) or `adapter/` (base + LoRA), and `recommender.json` beside it.

        `model/` loads with `transformers` alone, `adapter/` with `peft` on the base named in its config.
        """
        folder.mkdir(parents=True, exist_ok=True)
        record = {"template": self.template.name, "window": self.window, "base": self.name}
        if self.template.source is not None:
            record["template_source"] = self.template.source
        if self.active:
            (only,) = self.active
            adapters.save_adapter(self.lm, only, folder / "adapter")
        else:
            self.lm.save_pretrained(str(folder / "model"))
            self.tokenizer.save_pretrained(str(folder / "model"))
        (folder / "recommender.json").write_text(
            json.dumps(record, indent=2) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path, base: Backbone | None = None) -> "Recommender":
        """Load what `save` wrote; `base` spares loading the base of an adapter again.

        Raises:
            RunError: the folder holds no recommender, or its adapter comes without a base.
        """
        try:
            record = json.loads((folder / "recommender.json").read_text(encoding="utf-8"))
            template = find_template(record["template"], record.get("template_source"))
        except (OSError, ValueError, KeyError, DataError) as error:
            raise RunError(
                f"'{folder}': holds no recommender; name a folder made by e2urec train"
            ) from error
        if (folder / "model").is_dir():
            return cls(load_backbone(folder / "model"), template, window=record["window"])
        if base is None:
            raise RunError(
                f"'{folder}': holds an adapter; give the base model '{record['base']}' with it"
            )
        lm = adapters.load_adapter(base.lm, folder / "adapter", "original")
        return cls(
            Backbone(lm, base.tokenizer, base.name),
            template,
            active=("original",),
            window=record["window"],
        )

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
            "use_cache": False,
        }
        if self.seq2seq:
            start = self.lm.config.decoder_start_token_id
            inputs["decoder_input_ids"] = torch.full_like(batch.ids[:, :1], start)
        return inputs

    @torch.no_grad()
    def _check_head(self) -> None:
        """Some families scale or cap logits after the head; a cached state would then give other logits.

        And in some the last block is built otherwise than `answer_only` needs it: they do without.
        """
        ids = torch.tensor([self.tokenizer(PROBE).input_ids[:8]], device=self.device)
        last = torch.tensor([ids.shape[1] - 1], device=self.device)
        batch = Batch(ids, torch.ones_like(ids), last, last * 0, last * 0)
        with self.using():
            whole = self.lm(**self._inputs(batch)).logits[:, 0 if self.seq2seq else -1].float()
            if self._equal(whole, batch):
                return
            self.answer_only = False
            if not self._equal(whole, batch):
                raise ModelError(
                    f"model '{self.name}': changes its logits after the output head (a cap or a scale), which is "
                    "not supported; use a model without"
                )

    def _equal(self, whole: torch.Tensor, batch: Batch) -> bool:
        return torch.allclose(whole, self.logits(batch), atol=1e-3, rtol=1e-3)
