"""A frozen base whose blocks are split among processes: each holds a part of every weight (FSDP2).

Before a block computes, all processes together gather its weights, and let go of them afterwards
(Rajbhandari et al. 2020, arXiv 1910.02054; Zhao et al. 2023, arXiv 2304.11277). What is small and
trained, the adapters, is whole in every process: it is saved, added up and restored as without a
launcher. Embeddings and output head are whole as well, since the head is applied outside of the
model's own forward pass.
"""

import copy
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from ..core.errors import ConfigError, ModelError
from ..core.launch import join_processes
from ..core.process import process_count
from . import blocks
from .devices import default_device

OLDEST = "2.7"
"""PyTorch from which FSDP2 can leave single weights whole."""


def is_split(model: nn.Module) -> bool:
    """Whether blocks of `model` are split among processes."""
    if process_count() == 1:
        return False
    return any(isinstance(module, FSDPModule) for module in model.modules())


def refuse_split(model: nn.Module, wish: str) -> None:
    """Raise ConfigError where the blocks of `model` are split, and `wish` needs them whole."""
    if is_split(model):
        raise ConfigError(
            f"model.fsdp: {wish} needs the base's weights whole; start it in one process, or train "
            "with model.fsdp=false"
        )


def new_mesh() -> DeviceMesh:
    """All processes in a row. Every process must call it at the same time.

    Raises:
        ConfigError: PyTorch is too old.
    """
    if torch.__version__ < OLDEST:
        raise ConfigError(
            f"model.fsdp: needs PyTorch {OLDEST} or newer, and this is {torch.__version__}"
        )
    join_processes()
    return init_device_mesh(default_device().type, (process_count(),))


def split_blocks(lm: Any, mesh: DeviceMesh) -> None:
    """Leave of each block of `lm` this process's part alone, on its own device.

    Args:
        lm: a bare model, frozen; the same in all processes, or on the device `meta`.
        mesh: of the processes.

    Raises:
        ModelError: its blocks were not found.
    """
    for part, stack in _stacks(lm):
        for block in stack:
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        # Without a common root each block would keep the memory that it was gathered in.
        whole = {weight for weight in part.parameters() if not isinstance(weight, DTensor)}
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=whole)


def _stacks(lm: Any) -> list[tuple[nn.Module, nn.ModuleList]]:
    """The parts of `lm` that have blocks, and their blocks."""
    stacks = [(blocks.reader(lm), blocks.stack(lm))]
    if lm.config.is_encoder_decoder:
        decoder: nn.Module = lm.get_decoder()
        lists = [module for module in decoder.modules() if isinstance(module, nn.ModuleList)]
        if not lists:
            raise ModelError(
                f"model of type '{lm.config.model_type}': its decoder's blocks were not found; set "
                "model.fsdp=false"
            )
        stacks.append((decoder, lists[0]))
    return stacks


def twin(lm: Any) -> Any:
    """A bare model on the same weights as `lm`, which is split, for adapters of its own.

    FSDP copies no module. Its hooks gather the weights of the module that they were made for, so a
    second module gets hooks of its own on the same parts.
    """
    weights = [weight for weight in lm.parameters() if isinstance(weight, DTensor)]
    with torch.device("meta"):
        second = type(lm)(copy.deepcopy(lm.config))
    second.set_attn_implementation(lm.config._attn_implementation)
    second.to(lm.dtype).eval().requires_grad_(False)
    split_blocks(second, weights[0].device_mesh)
    second.load_state_dict(lm.state_dict(), assign=True)
    second.tie_weights()
    # Some buffers, such as rotary frequencies, are in no state.
    for name, buffer in lm.named_buffers():
        place, _, own_name = name.rpartition(".")
        second.get_submodule(place).register_buffer(own_name, buffer, persistent=False)
    return second


def whole_weight(weight: torch.Tensor) -> torch.Tensor:
    """The whole of a weight that may be split; every process must call it at the same time."""
    if isinstance(weight, DTensor):
        weight = weight.full_tensor()
    return weight.detach()
