"""The only file that calls PEFT: attach, switch, freeze, drop, merge, concatenate, save.

A model may carry several adapters at once. Which are active says whose model it is: none for a fully tuned
original, `("original",)` for base + LoRA, and one more for a student or an augmented model on top.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

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
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..core.errors import ConfigError, ModelError
from . import blocks

Active = Sequence[str]


class LoRA(BaseModel):
    """Low-rank adapters (Hu et al. 2021): each target's weight W becomes W + (alpha / rank)·B·A."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(16, ge=1, description="rank of the update of each target")
    alpha: float = Field(
        32.0, gt=0, description="scale of the update; it is multiplied by alpha / rank"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout on the adapter's input while it is trained"
    )
    targets: Literal["attention", "all"] = Field(
        "attention", description="query and value, or all linear layers"
    )
    upper: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the blocks, from the top, that get adapters; of an encoder-decoder's "
        "encoder, whose decoder gets them all",
    )

    def first_block(self, lm: Any) -> int:
        """Lowest block with an adapter: the states below it are the same whatever the adapter learns."""
        if self.upper == 1:
            return 0
        count = len(blocks.stack(lm))
        return count - max(1, round(self.upper * count))


ATTENTION = ({"q_proj", "v_proj"}, {"q", "v"}, {"query", "value"}, {"c_attn"}, {"query_key_value"})
"""What the query and value projections are called."""


def target_layers(lm: Any, lora: LoRA) -> list[str]:
    """Names of the layers that get an adapter: query and value projections, or every linear layer but the head.

    Raises:
        ModelError: the model has no layers of such names.
    """
    modules = dict(lm.named_modules())
    without = {lm.get_output_embeddings()}
    if lora.first_block(lm):
        without |= {
            module
            for block in blocks.stack(lm)[: lora.first_block(lm)]
            for module in block.modules()
        }
    for module in modules.values():
        if isinstance(
            module, LoraLayer
        ):  # a layer with an adapter holds the bare layer and the adapter's own
            without |= set(module.modules()) - {module}
    kinds = (nn.Linear, Conv1D, LoraLayer)
    layers = [
        name
        for name, module in modules.items()
        if isinstance(module, kinds) and module not in without
    ]
    if lora.targets == "all":
        return layers
    names = {name.rsplit(".", 1)[-1] for name in layers}
    for pair in ATTENTION:
        if names.issuperset(pair):
            return [name for name in layers if name.rsplit(".", 1)[-1] in pair]
    raise ModelError(
        f"model of type '{lm.config.model_type}': no query and value projections found; set targets=all"
    )


def attach(lm: Any, name: str, lora: LoRA, *, seed: int) -> Any:
    """Add adapter `name`, zero at first (B = 0), and return the model that carries it, all frozen."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_layers(_bare(lm), lora),
    )
    with torch.random.fork_rng():  # add_adapter draws from the global stream
        torch.manual_seed(seed)
        if isinstance(lm, PeftModel):
            lm.add_adapter(name, config)
        else:
            lm = get_peft_model(lm, config, adapter_name=name)
    lm.requires_grad_(False)
    return lm


def names(lm: Any) -> list[str]:
    """Names of the adapters that `lm` carries."""
    return list(lm.peft_config) if isinstance(lm, PeftModel) else []


@contextlib.contextmanager
def using_adapters(
    lm: Any, adapters: Active, *, train: str | None = None
) -> Iterator[list[nn.Parameter]]:
    """Inside, exactly `adapters` take part; afterwards modes, gradients and the active set are as before.

    With `train`, that adapter alone is trainable, and its dropout alone is on: the backbone stays in evaluation
    mode, so teachers and student see the same model. Yields the trainable parameters.
    """
    mode = {module: module.training for module in lm.modules()}
    wants = {parameter: parameter.requires_grad for parameter in lm.parameters()}
    before = list(lm.active_adapters) if isinstance(lm, PeftModel) else []
    disabled = isinstance(lm, PeftModel) and _disabled(lm)
    try:
        lm.eval().requires_grad_(False)
        if isinstance(lm, PeftModel):
            _switch(lm, adapters)
        else:
            assert not adapters, "a model without adapters cannot activate one"
        yield _trainable(lm, train)
    finally:
        if isinstance(lm, PeftModel):
            _switch(lm, [] if disabled else [name for name in before if name in lm.peft_config])
        for module, training in mode.items():
            module.training = training
        for parameter, wanted in wants.items():
            parameter.requires_grad_(wanted)


def _switch(lm: Any, adapters: Active) -> None:
    if adapters:
        lm.base_model.enable_adapter_layers()
        lm.base_model.set_adapter(list(adapters))
    else:
        lm.base_model.disable_adapter_layers()
    lm.requires_grad_(False)  # set_adapter makes what it activates trainable


def _disabled(lm: Any) -> bool:
    return any(getattr(module, "disable_adapters", False) is True for module in lm.modules())


def _trainable(lm: Any, train: str | None) -> list[nn.Parameter]:
    chosen = []
    for name, module in lm.named_modules():
        if train is not None and name.endswith(f"lora_dropout.{train}"):
            module.train()
    for name, parameter in lm.named_parameters():
        if train is not None and f".{train}." in name and "lora_" in name:
            parameter.requires_grad_(True)
            chosen.append(parameter)
    return chosen


def active_names(lm: Any) -> list[str]:
    """Names of the adapters that take part now."""
    return list(lm.active_adapters) if isinstance(lm, PeftModel) and not _disabled(lm) else []


@contextlib.contextmanager
def answering_adapters(lm: Any, adapters: Active) -> Iterator[None]:
    """Inside `using_adapters`, let only `adapters` take part for a while; modes and what is trainable stay as they are."""
    if not isinstance(lm, PeftModel):
        yield
        return
    before = active_names(lm)
    wants = [(parameter, parameter.requires_grad) for parameter in lm.parameters()]

    def switch(to: Active) -> None:
        _switch(lm, to)
        for parameter, wanted in wants:
            parameter.requires_grad_(wanted)

    try:
        switch(adapters)
        yield
    finally:
        switch(before)


@contextlib.contextmanager
def row_weights(lm: Any, rows: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside, the update of each adapter named is multiplied by a weight a row, (b,): w(x)·(alpha / rank)·B·A·x.

    Layers must see their input as (b, t, d), as those of Llama and T5 do.
    """
    layers = [module for module in lm.modules() if isinstance(module, LoraLayer)]
    usual = [dict(layer.scaling) for layer in layers]
    try:
        for layer, scaling in zip(layers, usual, strict=True):
            layer.scaling.update(
                {
                    name: scaling[name] * weight[:, None, None]
                    for name, weight in rows.items()
                    if name in scaling
                }
            )
        yield
    finally:
        for layer, scaling in zip(layers, usual, strict=True):
            layer.scaling.update(scaling)


def up_projections(lm: Any, name: str) -> list[nn.Parameter]:
    """The B matrices of adapter `name`: what alone has a gradient while they are zero."""
    return [value for key, value in lm.named_parameters() if f"lora_B.{name}." in key]


def weights(lm: Any, name: str) -> dict[str, torch.Tensor]:
    """A copy of adapter `name`'s A and B matrices."""
    return {
        key: value.detach().clone()
        for key, value in get_peft_model_state_dict(lm, adapter_name=name).items()
    }


def load_weights(lm: Any, name: str, weights: dict[str, torch.Tensor], scale: float = 1.0) -> None:
    """Give adapter `name` these A and scale·B: its update of each target becomes scale·B·A."""
    scaled = {key: value * scale if "lora_B" in key else value for key, value in weights.items()}
    set_peft_model_state_dict(lm, scaled, adapter_name=name)


def clear(lm: Any, name: str) -> None:
    """Make adapter `name` all zeros, A as well as B: nothing of what it was tuned on is left."""
    load_weights(
        lm, name, {key: torch.zeros_like(value) for key, value in weights(lm, name).items()}
    )


def remove(lm: Any, name: str) -> Any:
    """Delete adapter `name`; the bare model comes back once the last one is gone."""
    if len(lm.peft_config) > 1:
        lm.delete_adapter(name)
        return lm
    return lm.unload()


def merge(lm: Any, adapters: Active) -> Any:
    """Return a bare model whose weights hold `adapters`; the given model is used up."""
    return lm.merge_and_unload(adapter_names=list(adapters), safe_merge=True)


def total_rank(lm: Any, adapters: Active) -> int:
    """The ranks of `adapters` together."""
    return sum(lm.peft_config[name].r for name in adapters)


def concatenate(lm: Any, parts: Active, into: str, *, rank: int | None = None) -> None:
    """Replace adapters `parts` by their exact sum `into`: ranks add up, [B₁ B₂]·[A₁; A₂] = B₁A₁ + B₂A₂.

    Where they add up to more than `rank`, `into` is the nearest update of that rank to the sum instead (in the
    Frobenius norm; Eckart and Young 1936).
    """
    total = total_rank(lm, parts)
    rank = total if rank is None else min(rank, total)
    whole = into if rank == total and into not in parts else f"{into}_whole"
    lm.add_weighted_adapter(list(parts), [1.0] * len(parts), whole, combination_type="cat")
    for part in parts:
        lm.delete_adapter(part)
    if whole != into:
        config = copy.copy(lm.peft_config[whole])
        config.r, config.lora_alpha, config.rank_pattern, config.alpha_pattern = rank, rank, {}, {}
        with torch.random.fork_rng():
            lm.add_adapter(into, config)
        for layer in lm.modules():
            if isinstance(layer, LoraLayer) and whole in layer.lora_A:
                a, b = _nearest(
                    layer.lora_A[whole].weight,
                    layer.scaling[whole] * layer.lora_B[whole].weight,
                    rank,
                )
                layer.lora_A[into].weight.data, layer.lora_B[into].weight.data = a, b
        lm.delete_adapter(whole)
    lm.requires_grad_(False)


@torch.no_grad()
def _nearest(a: torch.Tensor, b: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank, in) and B (out, rank) whose product is nearest to b·a: (s, in), (out, s), without ever making it."""
    q_out, r_out = torch.linalg.qr(b.float())
    q_in, r_in = torch.linalg.qr(a.float().T)
    u, values, v = torch.linalg.svd(r_out @ r_in.T)
    root, kept = values[:rank].sqrt(), min(rank, len(values))
    up, down = q_out @ u[:, :kept] * root, (q_in @ v[:kept].T * root).T
    less = rank - kept  # a layer narrower than the rank
    up, down = (
        torch.nn.functional.pad(up, (0, less)),
        torch.nn.functional.pad(down, (0, 0, 0, less)),
    )
    return down.to(a.dtype).contiguous(), up.to(b.dtype).contiguous()


def save_adapter(lm: Any, name: str, folder: Path) -> None:
    """Write adapter `name` so that plain `PeftModel.from_pretrained(base, folder)` finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        k: v.detach().cpu().contiguous()
        for k, v in get_peft_model_state_dict(lm, adapter_name=name).items()
    }
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.copy(lm.peft_config[name])
    config.inference_mode = True
    config.save_pretrained(str(folder))


def load_adapter(lm: Any, folder: Path, name: str) -> Any:
    """Attach the adapter saved in `folder` under `name`, frozen.

    Raises:
        ConfigError: the folder holds no adapter.
    """
    if not (folder / "adapter_config.json").is_file():
        raise ConfigError(f"'{folder}': holds no adapter_config.json; name a folder saved by PEFT")
    loaded = PeftModel.from_pretrained(lm, str(folder), adapter_name=name)
    loaded.requires_grad_(False)
    return loaded


def _bare(lm: Any) -> Any:
    return lm.get_base_model() if isinstance(lm, PeftModel) else lm
