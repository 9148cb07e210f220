"""A recommender with the shapes of a model and without its weights, for counting bytes."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from ..core.arrays import Ints, Mask
from ..core.errors import ModelError
from . import adapters, blocks
from .adapters import LoRA
from .backbone import check_layers, find_gguf
from .base_files import holds_float32
from .batches import Batch, Examples, pack
from .recommender import Recommender
from .stored_weights import keep_stored
from .verbaliser import Verbaliser

# Which tokens these are changes no shape.
ANY_ANSWERS = Verbaliser(yes=0, no=1)


class WeightlessRecommender(Recommender):
    """A recommender inside `without_values`: everything of it works but reading a value.

    No tokenizer is loaded and no shortcut is checked, since both need values. It is taken to be a
    model on which the shortcuts hold, as they do in nearly all families.
    """

    def __init__(self, lm: Any, *, name: str, window: int) -> None:
        nn.Module.__init__(self)
        self.lm = lm
        self.tokenizer = None
        self.name = name
        self.seq2seq = bool(lm.config.is_encoder_decoder)
        self.pad = 0
        self.active = ()
        self.window = window
        self._own_answers = True
        self.verbaliser = ANY_ANSWERS
        self.stored_dtype = None
        self.answer_only = not self.seq2seq
        row = examples_of_length(window, 1)
        with torch.no_grad(), blocks.record_outputs(lm) as forms:
            self.plain_logits(self.collate(row, np.arange(1)))
        self.block_forms = forms

    def collate(self, examples: Examples, index: Ints) -> Batch:
        """Pad rows `index` into a batch without values: nothing of it may be looked at."""
        batch = super().collate(examples, index)
        shapes: dict[str, Any] = {
            name: torch.zeros(value.shape, dtype=value.dtype)
            for name, value in vars(batch).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(batch, **shapes)


def examples_of_length(length: int, count: int) -> Examples:
    """`count` rows of `length` tokens each; which tokens they are does not matter."""
    zeros = np.zeros(count, dtype=np.int8)
    return pack([[0] * length] * count, zeros, zeros, window=length)


class ShapedStates:
    """Stands for the states of lower blocks that are cached; see `batches.CachedStates`.

    Attributes:
        model: whose states they are.
        first_block: the block that they go into.
    """

    def __init__(self, model: Recommender, first_block: int) -> None:
        self.model: object = model
        self.first_block = first_block
        self.state_width = model.state_width

    def take(self, index: Ints) -> "ShapedStates":
        """All rows have the same shape."""
        return self

    def read(self, index: Ints, width: int) -> torch.Tensor | None:
        """(b, width, d) in float32, as states are between blocks."""
        return torch.zeros(len(index), width, self.state_width)

    def holds(self, index: Ints) -> Mask:
        """All rows are cached."""
        return np.ones(len(index), dtype=bool)


def read_config(source: str | Path, *, layers: int | None, offline: bool) -> Any:
    """The configuration of a model; its weights are not asked for.

    Args:
        source: a hub name or a local folder.
        layers: keep only so many blocks; None keeps all.
        offline: nothing is asked of the hub.

    Raises:
        ModelError: there is none, or it has fewer blocks than `layers`.
    """
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": offline}
    gguf_file = find_gguf(Path(source))
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    try:
        config = AutoConfig.from_pretrained(str(source), **options)
    # Each library under this call has exceptions of its own.
    except Exception as error:
        raise ModelError(
            f"model '{source}': its configuration cannot be read; give a Hugging Face name that is "
            "reachable, a local folder, or smollm2-135m"
        ) from error
    if layers is not None:
        check_layers(layers, config, str(source))
        config.num_hidden_layers = layers
    config.dtype = _stored_dtype(Path(source), config)
    return config


def _stored_dtype(folder: Path, config: Any) -> torch.dtype:
    """The precision in which a frozen base is held: that of its files, or what the config says."""
    # What is unpacked from a GGUF file has no precision of its own.
    is_unpacked = find_gguf(folder) is not None
    if is_unpacked or (any(folder.glob("*.safetensors")) and holds_float32(folder)):
        return torch.float32
    return config.dtype or torch.float32


def build_weightless(config: Any, *, dtype: torch.dtype, fused: bool) -> Any:
    """A language model of this configuration on no device; see `drop_values`.

    Args:
        config: of the model.
        dtype: precision of its weights.
        fused: whether attention is computed by one kernel, as on a GPU.

    Raises:
        ModelError: it is no causal and no sequence-to-sequence model, or its attention has no such
            kernel.
    """
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    implementation = "sdpa" if fused else "eager"
    try:
        with torch.device("meta"):
            lm = loader.from_config(
                copy.deepcopy(config), dtype=dtype, attn_implementation=implementation
            )
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"model of type '{config.model_type}': cannot be planned ({reason}); name a causal or "
            "a sequence-to-sequence language model"
        ) from error
    if dtype != torch.float32:
        keep_stored(lm)
    return lm.eval()


def attach_weightless(lm: Any, name: str, lora: LoRA) -> Any:
    """The model with adapter `name` on it; as `adapters.attach`, inside `without_values`."""
    # PEFT moves new adapters to where the model is, but for those that are nowhere yet.
    with torch.device("meta"):
        lm = adapters.attach(lm, name, lora, seed=0)
    drop_values(lm)
    return lm


def drop_values(lm: nn.Module) -> None:
    """Put tensors without values in place of those of `lm` that are on no device yet."""
    replaced: dict[torch.Tensor, Any] = {}
    for module in lm.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None or tensor.device.type != "meta":
                    continue
                # Tied weights stay tied.
                if tensor not in replaced:
                    replaced[tensor] = _like(tensor)
                tensors[name] = replaced[tensor]


def _like(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def linear_layers(lm: Any) -> Iterable[nn.Linear]:
    """The linear layers of a model, without its output head."""
    head = lm.get_output_embeddings()
    for module in lm.modules():
        if isinstance(module, nn.Linear) and module is not head:
            yield module
