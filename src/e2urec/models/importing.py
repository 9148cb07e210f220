"""Models that were tuned elsewhere: read, checked to be what e2urec computes with, and taken over.

A LoRA adapter can be more than low-rank updates: a bias, a whole layer, another scale or norm. What
is left out of it changes every answer without a word, so an adapter is taken over exactly or not at
all.
"""

import math
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from peft import LoraConfig
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from ..core.errors import ModelError
from ..core.reading import UNREADABLE, damaged, read_object
from .adapted_layers import ATTENTION_LAYERS
from .adapter_files import CONFIG_FILE, WEIGHTS_FILE
from .adapters import LoRA

TOKENIZER_FILE = "tokenizer_config.json"
PICKLED_FILE = "adapter_model.bin"
REMEDY = "name a folder that PEFT wrote"
PRECISIONS = {torch.float32, torch.bfloat16, torch.float16}
MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja")
"""What of a repository on the hub a model is loaded from."""
KNOWN_SETTINGS = (
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "merge_weights",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
)
"""Settings of an adapter that change nothing in how it answers, or are read from its weights."""
KEY = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<matrix>[AB])\.weight")
"""Name of a matrix of an adapter, as PEFT writes it."""
COPY = ".base_layer."
MERGE = "merge it into its base and import the whole model"
# Merged into one matrix, an update of the head would change what the model reads as well.
HEAD_REMEDY = (
    "merge it into its base, whose head must not be tied to its embeddings "
    "(tie_word_embeddings=false), and import the whole model"
)
PROJECTOR = re.compile(r"(^|\.)(llama_proj|rec_encoder)\w*\.")
"""Names of what CoLLM puts beside a language model: of IDs it makes states."""


@dataclass(frozen=True)
class ForeignAdapter:
    """A plain LoRA adapter: W + (alpha / rank)·B·A at each of its layers.

    Attributes:
        tensors: its matrices by PEFT's names, in the precision in which they came.
        rank: of all of them.
        alpha: scale of the update, times its rank.
        dropout: that it was tuned with.
        layers: names of the layers that it adapts, in order.
        task: PEFT's name of what it is for.
        base: name or folder of the model that it says it is of, if it does.
        revision: commit of that model.
    """

    tensors: dict[str, torch.Tensor]
    rank: int
    alpha: float
    dropout: float
    layers: list[str]
    task: str | None
    base: str | None
    revision: str | None

    @property
    def dtype(self) -> str:
        """Precision of its matrices, such as `bfloat16`."""
        tensor = next(iter(self.tensors.values()))
        return str(tensor.dtype).removeprefix("torch.")

    @property
    def lora(self) -> LoRA:
        """The same as a recipe says it, for adapters that are tuned beside it."""
        names = {layer.rsplit(".", 1)[-1] for layer in self.layers}
        targets = "attention" if names in ATTENTION_LAYERS else tuple(sorted(names))
        return LoRA.model_validate(
            {
                "rank": self.rank,
                "alpha": self.alpha,
                "dropout": self.dropout,
                "targets": targets,
            }
        )

    def save(self, folder: Path, base: str, revision: str | None) -> None:
        """Write it as PEFT reads it, with nothing in its settings that needs to be guessed.

        Args:
            folder: to make.
            base: the model that it was tuned on, by a name or folder that can be loaded.
            revision: commit of that model.
        """
        folder.mkdir(parents=True)
        save_file(self.tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.layers,
            task_type=self.task,
            base_model_name_or_path=base,
            revision=revision,
            inference_mode=True,
        )
        config.save_pretrained(str(folder))


def model_folder(name: str, what: str = "model") -> Path:
    """The folder of a model or an adapter, fetched from the hub unless `name` is a folder.

    Raises:
        ModelError: there is no such folder, and it cannot be fetched.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(name, allow_patterns=list(MODEL_FILES)))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise ModelError(
            f"{what} '{name}': is no folder, and cannot be fetched ({reason}); name a folder, or a "
            "Hugging Face name that is reachable"
        ) from error


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and not a whole model."""
    return (folder / CONFIG_FILE).is_file()


def own_tokenizer(folder: Path) -> Any | None:
    """The tokenizer in the folder of an adapter; None where there is none.

    Raises:
        ModelError: it cannot be read.
    """
    if not (folder / TOKENIZER_FILE).is_file():
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    # Each library under this call has exceptions of its own; tokenizers raises plain ones.
    except Exception as error:
        raise ModelError(
            f"adapter '{folder}': its tokenizer cannot be read; save it again, or remove its files "
            "to take that of the base"
        ) from error


def read_adapter(folder: Path) -> ForeignAdapter:
    """Read an adapter that PEFT wrote, in whatever version.

    rsLoRA's scale alpha / √rank is written as the plain scale that equals it.

    Raises:
        ModelError: it is no plain LoRA adapter, is empty, or cannot be read.
        RunError: its settings are damaged.
    """
    place = f"adapter '{folder}'"
    values = read_object(folder / CONFIG_FILE, REMEDY)
    _refuse_other_settings(values, place)
    try:
        config = _Config.model_validate(values)
    except UNREADABLE as error:
        raise damaged(folder / CONFIG_FILE, REMEDY) from error
    tensors = _read_tensors(folder, place)
    _refuse_other_numbers(tensors, place)
    layers = _layers(tensors, place)
    rank = _rank(tensors, config.r, place)
    alpha = config.lora_alpha
    if config.use_rslora:
        alpha *= math.sqrt(rank)
    ups = [tensor for key, tensor in tensors.items() if ".lora_B." in key]
    if not any(bool(tensor.any()) for tensor in ups):
        raise ModelError(
            f"{place}: all its B matrices are zero, so it changes nothing; name the adapter that "
            "was tuned, or save it again"
        )
    return ForeignAdapter(
        tensors=tensors,
        rank=rank,
        alpha=alpha,
        dropout=config.lora_dropout or 0.0,
        layers=layers,
        task=config.task_type,
        base=config.base_model_name_or_path,
        revision=config.revision,
    )


class _Config(BaseModel):
    """What is read of an adapter's settings."""

    model_config = ConfigDict(frozen=True)

    r: StrictInt = LoraConfig().r
    lora_alpha: float = Field(LoraConfig().lora_alpha, gt=0, allow_inf_nan=False)
    lora_dropout: float | None = Field(None, ge=0, lt=1)
    use_rslora: StrictBool = False
    task_type: Literal["CAUSAL_LM", "SEQ_2_SEQ_LM"] | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None


def _refuse_other_settings(config: dict[str, Any], place: str) -> None:
    """Raise ModelError for a setting that makes an adapter more than plain LoRA."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ModelError(
            f"{place}: is of the kind {kind}, which is not supported; give a LoRA adapter, or "
            "merge it into its base and import the whole model"
        )
    usual = LoraConfig().to_dict()
    for name, value in sorted(config.items()):
        is_usual = not value or value == usual.get(name) or name in KNOWN_SETTINGS
        # Only the start of its tuning, unless it changed the base as well.
        if name == "init_lora_weights":
            is_usual = value in (True, False, "gaussian")
        if not is_usual:
            raise ModelError(
                f"{place}: has the setting {name}={value!r}, which is more than plain LoRA; {MERGE}"
            )


def _read_tensors(folder: Path, place: str) -> dict[str, torch.Tensor]:
    """The adapter's matrices; nothing that a pickled file would run is run."""
    safe = folder / WEIGHTS_FILE
    pickled = folder / PICKLED_FILE
    try:
        if safe.is_file():
            tensors: Any = load_file(safe)
        else:
            tensors = torch.load(pickled, map_location="cpu", weights_only=True)
        tensors = {str(key): tensor.contiguous() for key, tensor in tensors.items()}
    except FileNotFoundError as error:
        raise ModelError(
            f"{place}: holds neither {WEIGHTS_FILE} nor {PICKLED_FILE}; name a folder that PEFT "
            "wrote"
        ) from error
    except (*UNREADABLE, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(f"{place}: its weights are damaged; copy or save them again") from error
    if not tensors:
        raise ModelError(
            f"{place}: holds no weights at all, which an early PEFT wrote after "
            "model.state_dict was replaced; save it again without that"
        )
    return dict(tensors)


def _refuse_other_numbers(tensors: dict[str, torch.Tensor], place: str) -> None:
    """Raise ModelError unless all matrices are of one precision, and hold numbers."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) > 1 or not dtypes <= PRECISIONS:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise ModelError(
            f"{place}: its matrices are of {names}; save all of them in one of float32, bfloat16 "
            "and float16"
        )
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ModelError(f"{place}: some of its weights are no numbers; copy or save them again")


def _layers(tensors: dict[str, torch.Tensor], place: str) -> list[str]:
    """Names of the adapted layers, in the order of the file.

    Raises:
        ModelError: a weight is no matrix of a plain adapter, or lacks its other half.
    """
    matrices: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        _refuse_projector(key, place)
        match = KEY.fullmatch(key)
        if match is None or tensor.dim() != 2:
            # PEFT saves a copy of embeddings and head where one of them has an adapter.
            remedy = HEAD_REMEDY if COPY in key else MERGE
            raise ModelError(
                f"{place}: holds {key}, which is no matrix of a plain LoRA adapter; {remedy}"
            )
        matrices.setdefault(match["layer"], set()).add(match["matrix"])
    for layer, halves in matrices.items():
        if halves != {"A", "B"}:
            raise ModelError(f"{place}: {layer} lacks one of A and B; save it again")
    return list(matrices)


def refuse_projectors(folder: Path) -> None:
    """Raise ModelError for a whole model with weights that turn IDs into states."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                keys = list(tensors.keys())
        # Whoever loads the model says what is wrong with the file.
        except UNREADABLE:
            continue
        for key in keys:
            _refuse_projector(key, f"model '{folder}'")


def _refuse_projector(key: str, place: str) -> None:
    if PROJECTOR.search(key):
        raise ModelError(
            f"{place}: holds the projector {key}, which turns IDs into states that no "
            "prompt of text holds; name the model or adapter of its text stage"
        )


def _rank(tensors: dict[str, torch.Tensor], rank: int, place: str) -> int:
    ranks = {len(tensor) for key, tensor in tensors.items() if ".lora_A." in key}
    if ranks != {rank}:
        raise ModelError(
            f"{place}: its matrices are of rank {sorted(ranks)}, its settings say {rank}; adapters "
            "of several ranks are not supported, so merge it into its base"
        )
    return rank
