"""LoRA adapters on a language model: attach, switch, freeze, remove.

This file, `adapted_layers.py`, `adapter_files.py`, `adapter_algebra.py` and `importing.py` are the
only five that call PEFT.

A model may carry several adapters at once. Which of them are active says whose model it is: none
for a fully tuned original, `("original",)` for base + LoRA, and one more for a student or an
augmented model on top.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ..core.errors import ModelError
from . import blocks
from .adapted_layers import Targets, all_modules, lora_layers, target_layers
from .devices import seeded
from .quantisation import packed_tensors
from .stored_weights import float32_adapters


class LoRA(BaseModel):
    """Low-rank adapters (Hu et al. 2021): each target's weight W becomes W + (alpha / rank)·B·A."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # A rank above a matrix's width adds memory and nothing else; no model here is that wide.
    rank: int = Field(16, ge=1, le=16384, description="rank of the update of each target")
    alpha: float = Field(
        32.0, gt=0, description="scale of the update; it is multiplied by alpha / rank"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout on the adapter's input while it is trained"
    )
    targets: Targets = Field(
        "attention",
        description="query and value, all linear layers, or layers by name, such as "
        '`["q_proj", "o_proj"]`',
    )
    upper: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the blocks, from the top, that get adapters; of an encoder-decoder's "
        "encoder, whose decoder gets them all",
    )

    def first_block(self, lm: Any) -> int:
        """Lowest block with an adapter: no adapter changes the states that reach this block."""
        if self.upper == 1:
            return 0
        block_count = len(blocks.stack(lm))
        adapted_count = max(1, round(self.upper * block_count))
        return block_count - adapted_count


def bare_model(lm: Any) -> Any:
    """The language model below its adapters; itself where it has none."""
    return lm.get_base_model() if isinstance(lm, PeftModel) else lm


def attach(lm: Any, name: str, lora: LoRA, *, seed: int) -> Any:
    """Add adapter `name` to `lm` and return the model that carries it, all of it frozen.

    The adapter changes nothing at first: its B is zero.
    """
    bare = bare_model(lm)
    targets = target_layers(bare, lora.targets, lora.first_block(bare))
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
    )
    # PEFT draws A from the global random stream, which is the caller's.
    with seeded(seed, bare.device), float32_adapters(bare):
        if isinstance(lm, PeftModel):
            lm.add_adapter(name, config)
        else:
            lm = get_peft_model(lm, config, adapter_name=name)
    lm.requires_grad_(False)
    _check_places(lm, name, targets)
    return lm


def _check_places(lm: Any, name: str, targets: Sequence[str]) -> None:
    """Check that adapter `name` lies on the layers `targets` and on no other.

    What is replayed of lower blocks would be wrong with an adapter there.

    Raises:
        ModelError: it does not.
    """
    bare = lm.get_base_model()
    places = {
        place
        for place, module in bare.named_modules()
        if isinstance(module, LoraLayer) and name in module.lora_A
    }
    different = places ^ set(targets)
    if different:
        raise ModelError(
            f"model of type '{bare.config.model_type}': PEFT puts adapters on {len(different)} "
            f"other layers than it was told, such as {min(different)}; set lora.targets=attention"
        )


def shared_weights(lm: Any) -> dict[int, Any]:
    """The memo with which `copy.deepcopy` copies modules and adapters, and shares all weights.

    Only for weights that nobody moves: those below adapters.
    """
    memo = {
        id(parameter): parameter for name, parameter in lm.named_parameters() if "lora_" not in name
    }
    return memo | {id(tensor): tensor for tensor in packed_tensors(lm)}


def names(lm: Any) -> list[str]:
    """Names of the adapters that `lm` carries."""
    return list(lm.peft_config) if isinstance(lm, PeftModel) else []


def active_names(lm: Any) -> list[str]:
    """Names of the adapters that take part in the model's answers at present."""
    if not isinstance(lm, PeftModel) or _is_disabled(lm):
        return []
    return list(lm.active_adapters)


@contextlib.contextmanager
def using_adapters(
    lm: Any, active: Sequence[str], *, train: str | None = None
) -> Iterator[list[nn.Parameter]]:
    """Inside, exactly the adapters `active` take part; afterwards everything is as it was.

    That is: the modes of all modules, which parameters have a gradient, and the active adapters.

    Args:
        lm: the model.
        active: the adapters that take part.
        train: the one adapter that is trainable, and whose dropout is on. The backbone stays in
            evaluation mode, so that teachers and student see the same model.

    Yields:
        The trainable parameters; none without `train`.
    """
    before = _Switches.of(lm)
    try:
        if any(before.modes.values()):
            lm.eval()
        if isinstance(lm, PeftModel):
            _switch(lm, active)
        else:
            assert not active, "a model without adapters cannot activate one"
        _set_gradients(dict.fromkeys(before.gradients, False))
        yield [] if train is None else _start_training(lm, train)
    finally:
        before.restore(lm)


@contextlib.contextmanager
def answering_adapters(lm: Any, active: Sequence[str]) -> Iterator[None]:
    """Inside, only the adapters `active` answer, for a short while within `using_adapters`.

    Modes, and which parameters have a gradient, stay as they are.
    """
    if not isinstance(lm, PeftModel):
        yield
        return
    before = active_names(lm)
    gradients = _gradients(all_modules(lm))
    try:
        _switch(lm, active)
        _set_gradients(gradients)
        yield
    finally:
        _switch(lm, before)
        _set_gradients(gradients)


@dataclass(frozen=True)
class _Switches:
    """What `using_adapters` changes of a model, as it was before."""

    modes: dict[nn.Module, bool]
    gradients: dict[nn.Parameter, bool]
    active: list[str]

    @classmethod
    def of(cls, lm: Any) -> Self:
        modes = {module: module.training for module in all_modules(lm)}
        return cls(modes, _gradients(modes), active_names(lm))

    def restore(self, lm: Any) -> None:
        if isinstance(lm, PeftModel):
            # The caller may have removed an adapter that was active.
            _switch(lm, [name for name in self.active if name in lm.peft_config])
        for module, training in self.modes.items():
            if module.training != training:
                module.training = training
        _set_gradients(self.gradients)


def _gradients(modules: Iterable[nn.Module]) -> dict[nn.Parameter, bool]:
    gradients = {}
    for module in modules:
        for parameter in module._parameters.values():
            if parameter is not None:
                gradients[parameter] = parameter.requires_grad
    return gradients


def _set_gradients(gradients: Mapping[nn.Parameter, bool]) -> None:
    for parameter, requires_grad in gradients.items():
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)


def _switch(lm: Any, active: Sequence[str]) -> None:
    """Have the adapters `active` answer. PEFT makes those it activates trainable.

    Its calls for a whole model walk all modules of all adapters, more than once: a third of a
    toy's time. Its layers are told one by one.
    """
    for layer in lora_layers(lm):
        if layer.disable_adapters == bool(active):
            layer.enable_adapters(bool(active))
        if active and layer.active_adapters != list(active):
            layer.set_adapter(list(active))
    if active:
        lm.base_model.active_adapter = list(active)


def _is_disabled(lm: Any) -> bool:
    # PEFT keeps its list of active adapters while they are disabled: only the layers know.
    return any(layer.disable_adapters for layer in lora_layers(lm))


def _start_training(lm: Any, name: str) -> list[nn.Parameter]:
    """Turn on the dropout and the gradients of adapter `name`, and return its parameters."""
    for module_name, module in lm.named_modules():
        if module_name.endswith(f"lora_dropout.{name}"):
            module.train()
    parameters = []
    for key, parameter in lm.named_parameters():
        if f".{name}." in key and "lora_" in key:
            parameter.requires_grad_(True)
            parameters.append(parameter)
    return parameters


def up_projections(lm: Any, name: str) -> list[nn.Parameter]:
    """The B matrices of adapter `name`: while they are zero, they alone have a gradient."""
    return [parameter for key, parameter in lm.named_parameters() if f"lora_B.{name}." in key]


@dataclass(frozen=True)
class AdaptedLayer:
    """A layer with an adapter, which adds `scale`·B·A·x to what the layer makes of x.

    Attributes:
        module: the layer with all its adapters.
        down: A.
        up: B.
        scale: alpha / rank.
    """

    module: nn.Module
    down: nn.Module
    up: nn.Linear
    scale: float


def adapted_layers(lm: Any, name: str) -> list[AdaptedLayer]:
    """The layers that carry adapter `name`, in the order of its matrices."""
    layers = []
    for layer in lora_layers(lm):
        if name in layer.lora_B:
            down = layer.lora_A[name]
            up = layer.lora_B[name]
            layers.append(AdaptedLayer(layer, down, up, layer.scaling[name]))
    return layers


def weights(lm: Any, name: str) -> dict[str, torch.Tensor]:
    """A copy of the A and B matrices of adapter `name`."""
    state = get_peft_model_state_dict(lm, adapter_name=name)
    return {key: value.detach().clone() for key, value in state.items()}


def load_weights(lm: Any, name: str, weights: dict[str, torch.Tensor], scale: float = 1.0) -> None:
    """Give adapter `name` these A, and B multiplied by `scale`: its update becomes scale·B·A."""
    state = dict(weights)
    for key, value in weights.items():
        if "lora_B" in key:
            state[key] = value * scale
    set_peft_model_state_dict(lm, state, adapter_name=name)


def clear(lm: Any, name: str) -> None:
    """Set adapter `name` to zeros, A as well as B, so that it holds nothing of what it learned."""
    current = weights(lm, name)
    zeros = {key: torch.zeros_like(value) for key, value in current.items()}
    load_weights(lm, name, zeros)


def remove(lm: Any, name: str) -> Any:
    """Delete adapter `name`, and return the model; without its last adapter it is the bare one."""
    if len(lm.peft_config) > 1:
        lm.delete_adapter(name)
        return lm
    return lm.unload()
