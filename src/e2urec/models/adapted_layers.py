"""Which layers of a language model get an adapter."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..core.errors import ModelError
from . import blocks

Targets = Literal["attention", "all"] | tuple[str, ...]
"""The query and value projections, every linear layer but the output head, or layers by name."""

# Model families name their query and value projections differently. Some compute both in one
# layer, with the key, so a family's set may hold a single name.
ATTENTION_LAYERS = (
    {"q_proj", "v_proj"},
    {"q", "v"},
    {"query", "value"},
    {"c_attn"},
    {"query_key_value"},
    {"qkv_proj"},
    {"Wqkv"},
    # DeepSeek's latent attention expands queries, and keys with values, from narrower states. Its
    # smaller models compute queries at once.
    {"q_b_proj", "kv_b_proj"},
    {"q_proj", "kv_b_proj"},
)

# Models of these types read the weights of these layers past the layer, and so past an adapter:
# PEFT refuses the first, and one on the second would have no effect.
MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
MAMBA_LAYERS = ("out_proj", "dt_proj")


def target_layers(lm: Any, targets: Targets, first_block: int) -> list[str]:
    """Names of the layers that get an adapter, none of them below block `first_block`.

    These are the query and value projections, every linear layer but the output head, or those
    whose names end so.

    Raises:
        ModelError: the model, or its upper blocks, have no such layers.
    """
    linear_layers = {
        name: module
        for name, module in lm.named_modules()
        if isinstance(module, (nn.Linear, Conv1D, LoraLayer))
    }
    excluded = _layers_without_adapter(lm, first_block)
    names = [name for name, module in linear_layers.items() if module not in excluded]
    family = f"model of type '{lm.config.model_type}'"
    if targets != "all":
        # The names of all blocks: in some families upper ones take their values from lower ones.
        wanted = _wanted_layers(linear_layers, targets, family)
        names = [name for name in names if _last_part(name) in wanted]
    if not names:
        raise ModelError(
            f"{family}: no layer for an adapter from block {first_block} on; raise lora.upper"
        )
    return _adaptable(lm, names, family)


def _wanted_layers(linear_layers: Iterable[str], targets: Targets, family: str) -> set[str]:
    """Last parts of the names of the layers that `targets` asks for."""
    suffixes = {_last_part(name) for name in linear_layers}
    if isinstance(targets, tuple):
        unknown_names = set(targets) - suffixes
        if unknown_names or not targets:
            raise ModelError(
                f"{family}: has no layer called {sorted(unknown_names)}; correct lora.targets, or "
                "set lora.targets=all"
            )
        return set(targets)
    for attention_layers in ATTENTION_LAYERS:
        if attention_layers <= suffixes:
            return attention_layers
    raise ModelError(f"{family}: no query and value projections found; set lora.targets=all")


def _adaptable(lm: Any, names: Sequence[str], family: str) -> list[str]:
    """Those of `names` on which an adapter works; of others it says how many they are."""
    config = LoraConfig(target_modules=list(names))
    # PEFT takes some names of shared experts for those of the routed ones, whose weights it would
    # adapt in all blocks.
    convert_peft_config_for_transformers(config, lm, conversions=None)
    adaptable = [
        name
        for name in names
        if name in config.target_modules
        and not (lm.config.model_type in MAMBA and _last_part(name) in MAMBA_LAYERS)
    ]
    skipped = [name for name in names if name not in adaptable]
    if skipped:
        warnings.warn(
            f"{family}: no adapter of PEFT works on {len(skipped)} of its {len(names)} linear "
            f"layers, such as {skipped[0]}; these stay as they are",
            stacklevel=2,
        )
    return adaptable


def _last_part(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _layers_without_adapter(lm: Any, first_block: int) -> set[nn.Module]:
    """The head, what reads pictures, routers, what adapters consist of.

    With a first adapted block, also what reads the prompt below it, or beside the blocks.
    """
    excluded: set[nn.Module] = {lm.get_output_embeddings()}
    reader = blocks.reader(lm)
    if not lm.config.is_encoder_decoder:
        text_modules = set(reader.modules())
        excluded.update(module for module in lm.modules() if module not in text_modules)
    if first_block:
        stack = blocks.stack(lm)
        lower_modules = _modules(stack[:first_block])
        # A module that blocks share is the lower ones' as well.
        upper_modules = _modules(stack[first_block:]) - lower_modules
        excluded.update(module for module in reader.modules() if module not in upper_modules)
    # Routers choose among experts. Llama 4's is a linear layer that returns more than its product;
    # those of other families are no linear layers, and get no adapter either.
    excluded.update(module for module in lm.modules() if type(module).__name__.endswith("Router"))
    # A layer that has an adapter holds the bare layer and the adapter's own matrices, all of them
    # linear: a further adapter goes on the layer as a whole.
    for layer in lora_layers(lm):
        excluded.update(module for module in layer.modules() if module is not layer)
    return excluded


def output_width(layer: Any) -> int:
    """Numbers that a layer with an adapter, or that may get one, gives for each token."""
    return int(layer.nf if isinstance(layer, Conv1D) else layer.out_features)


def _modules(parts: Iterable[nn.Module]) -> set[nn.Module]:
    """All modules in `parts`, themselves included."""
    return {module for part in parts for module in part.modules()}


def all_modules(lm: nn.Module) -> list[nn.Module]:
    """Every module of a model once, itself first.

    PyTorch's `modules` hands each one up through a generator a level, and models are switched all
    the time: of a toy's time it took a tenth.
    """
    found = {lm: True}
    waiting = [lm]
    while waiting:
        for child in waiting.pop()._modules.values():
            if child is not None and child not in found:
                found[child] = True
                waiting.append(child)
    return list(found)


def lora_layers(module: nn.Module) -> list[LoraLayer]:
    """The layers of a model that have an adapter."""
    layers = []
    for child in module.children():
        # What is inside of one has none, and is most of all modules.
        layers += [child] if isinstance(child, LoraLayer) else lora_layers(child)
    return layers
