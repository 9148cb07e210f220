"""Load a causal or sequence-to-sequence language model with its tokenizer."""

import copy
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from ..core.errors import ModelError


@dataclass(frozen=True)
class Backbone:
    """A language model and its tokenizer, before any user's data.

    `lm` is a `PreTrainedModel` in float32 and evaluation mode; `name` is what the caller asked for.
    """

    lm: Any
    tokenizer: Any
    name: str

    @property
    def seq2seq(self) -> bool:
        """Whether the answer is decoded by a decoder of its own (T5) or follows the prompt (Llama)."""
        return bool(self.lm.config.is_encoder_decoder)

    @property
    def pad(self) -> int:
        """Token id that fills a batch on the right; masked, so its value does not matter."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0):
            if token is not None:
                return int(token)
        raise AssertionError("unreachable")

    def copy(self) -> "Backbone":
        """Return a copy with weights of its own, so that tuning it leaves this one as it was."""
        return Backbone(copy.deepcopy(self.lm), self.tokenizer, self.name)

    def with_random_weights(self, *, seed: int) -> "Backbone":
        """Return the same architecture with random weights: a model that knows nothing."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            lm = type(self.lm)(copy.deepcopy(self.lm.config))
        return Backbone(lm.eval().to(self.lm.device), self.tokenizer, self.name)


def load_backbone(source: str | Path, *, layers: int | None = None) -> Backbone:
    """Load the language model in `source`: a hub name, a local folder, or a folder that holds one GGUF file.

    Args:
        source: name or folder.
        layers: keep only the first `layers` blocks of a decoder.

    Raises:
        ModelError: the model cannot be loaded, or has fewer blocks than `layers`.
    """
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    folder = Path(source)
    packed = sorted(folder.glob("*.gguf")) if folder.is_dir() else []
    extra: dict[str, Any] = {"gguf_file": packed[0].name} if packed else {}
    try:
        config = AutoConfig.from_pretrained(str(source), **extra)
        tokenizer = AutoTokenizer.from_pretrained(str(source), **extra)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        if layers is not None:
            extra["num_hidden_layers"] = _allowed(layers, config, source)
        device = default_device()
        if (
            device.type == "cpu"
        ):  # the fused kernel's backward pass is slower there than plain products
            extra["attn_implementation"] = "eager"
        lm = kind.from_pretrained(str(source), dtype=torch.float32, **extra)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model '{source}': cannot be loaded ({reason}); "
            "give a Hugging Face name that is reachable, a local folder, or smollm2-135m"
        ) from error
    if packed:  # the weights are unpacked to float32 now: nothing quantised is left to describe
        lm.hf_quantizer = None
        del lm.config.quantization_config
    return Backbone(lm.eval().to(device), tokenizer, str(source))


def default_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def _allowed(layers: int, config: Any, source: str | Path) -> int:
    if config.is_encoder_decoder:
        raise ModelError(f"model '{source}': layers={layers} works for decoders only; leave it out")
    if not 1 <= layers <= config.num_hidden_layers:
        raise ModelError(
            f"model '{source}': layers={layers} is outside 1..{config.num_hidden_layers}; choose one inside"
        )
    return layers
