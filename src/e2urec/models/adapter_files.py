"""LoRA adapters on the disk, as PEFT writes and reads them."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

from ..core.errors import ConfigError, ModelError
from .adapters import weights
from .stored_weights import float32_adapters

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def save_adapter(
    lm: Any,
    name: str,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write adapter `name` so that plain `PeftModel.from_pretrained(base, folder)` loads it.

    Args:
        lm: the model that carries it.
        name: of the adapter.
        folder: to write to.
        dtype: precision of what is written; None: that in which it is at hand.
        settings: of PEFT's configuration, in place of the adapter's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(lm, adapter_name=name)
    # Safetensors refuses a tensor that is a strided view.
    tensors = {key: value.detach().cpu().to(dtype).contiguous() for key, value in state.items()}
    # Loaders ask for the format before they read a tensor.
    metadata = {"format": "pt"}
    save_file(tensors, folder / WEIGHTS_FILE, metadata=metadata)
    # A copy, so that the adapter may still be trained after it was saved.
    config = copy.copy(lm.peft_config[name])
    config.inference_mode = True
    for key, value in (settings or {}).items():
        setattr(config, key, value)
    config.save_pretrained(str(folder))


def load_adapter(lm: Any, folder: Path, name: str) -> Any:
    """Attach the adapter saved in `folder` under `name`, frozen.

    Raises:
        ConfigError: the folder holds no adapter.
        ModelError: the adapter cannot be read, or is not one of this model.
    """
    # PEFT would look for pickled weights, and for both files on the hub.
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise ConfigError(f"'{folder}': holds no {file}; name a folder saved by PEFT")
    try:
        # PEFT would read it to the first GPU, whichever the model is on.
        with float32_adapters(lm):
            loaded = PeftModel.from_pretrained(
                lm, str(folder), adapter_name=name, torch_device=str(lm.device)
            )
        keys = _keys(folder / WEIGHTS_FILE)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    # PEFT passes on whatever the types and shapes of a damaged file lead to.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"adapter '{folder}': cannot be loaded ({reason[0]}); restore it, or give the base "
            "that it was tuned on"
        ) from error
    # PEFT only warns, and leaves a layer that has no weights at its initial values.
    different = keys ^ set(weights(loaded, name))
    if different:
        raise ModelError(
            f"adapter '{folder}': {len(different)} missing or unused weights, such as "
            f"{min(different)}; restore it, or give the base that it was tuned on"
        )
    loaded.requires_grad_(False)
    return loaded


def _keys(file: Path) -> set[str]:
    with safe_open(file, framework="pt") as tensors:
        return set(tensors.keys())
