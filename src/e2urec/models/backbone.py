"""Load a causal or sequence-to-sequence language model with its tokenizer."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import constants as hub
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from ..core.errors import ConfigError, E2URecError, ModelError
from ..core.launch import wait_for_all
from ..core.process import process_count, rank
from . import adapters, fsdp, stored_weights
from .base_files import base_folder, holds_float32
from .devices import default_device, on_cpu, seeded
from .quantisation import Quantisation, is_quantised, loading_options, settle
from .verbaliser import Verbaliser


@dataclass(frozen=True)
class Backbone:
    """A language model and its tokenizer, before any user's data.

    Attributes:
        lm: a `PreTrainedModel` in evaluation mode, in float32 or as `load_frozen` has it.
        tokenizer: its tokenizer.
        name: the name or folder that the caller asked for.
        verbaliser: the answers that it was tuned on elsewhere; None: Yes and No, as they follow our
            prompts.
    """

    lm: Any
    tokenizer: Any
    name: str
    verbaliser: Verbaliser | None = None

    @property
    def seq2seq(self) -> bool:
        """Whether a decoder of its own writes the answer (T5), or it follows the prompt (Llama)."""
        return bool(self.lm.config.is_encoder_decoder)

    @property
    def pad(self) -> int:
        """Token id that fills a batch on the right; masked, so its value does not matter."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0):
            if token is not None:
                return int(token)
        raise AssertionError("unreachable")

    def copy(self) -> "Backbone":
        """Return a copy with float32 weights of its own: tuning it leaves this one as it was.

        Raises:
            ConfigError: its blocks are split among processes.
        """
        fsdp.refuse_split(self.lm, "tuning without tuning.lora")
        lm = copy.deepcopy(self.lm)
        stored_weights.widen(lm)
        return replace(self, lm=lm)

    def with_shared_weights(self) -> "Backbone":
        """Return a copy for adapters of its own, on the same weights, which are frozen from now on.

        It takes no memory. Adapters that are attached to one are not on the other.
        """
        self.lm.requires_grad_(False)
        if fsdp.is_split(self.lm):
            return replace(self, lm=fsdp.twin(self.lm))
        return replace(self, lm=copy.deepcopy(self.lm, adapters.shared_weights(self.lm)))

    def with_random_weights(self, *, seed: int) -> "Backbone":
        """Return the same architecture with random weights: a model that knows nothing."""
        with seeded(seed, self.lm.device):
            architecture = type(self.lm)
            lm = architecture(copy.deepcopy(self.lm.config))
        lm = lm.eval().to(self.lm.device)
        return replace(self, lm=lm)


def load_backbone(
    source: str | Path,
    *,
    layers: int | None = None,
    revision: str | None = None,
    exact: bool = False,
    offline: bool = False,
    dtype: torch.dtype | Literal["auto"] | Quantisation = torch.float32,
) -> Backbone:
    """Load a language model and its tokenizer; no code that comes with one is ever run.

    Args:
        source: a hub name, a local folder, or a folder that holds one GGUF file.
        layers: keep only the first `layers` blocks of a decoder; None keeps all.
        revision: commit of a hub name; None: the newest.
        exact: whether weights that the model has no use for are an error, too. A model of ours has
            none; one from elsewhere may come with another task's head.
        offline: a hub name must be on this machine already: nothing is asked of the hub.
        dtype: precision of the weights in memory; `auto`: that in which they are stored; `4bit` or
            `8bit`: that of the linear layers, for adapters on a frozen base.

    Raises:
        ConfigError: `4bit` or `8bit` without bitsandbytes, or of a GGUF file.
        ModelError: the model cannot be loaded, lacks weights, or has fewer blocks than `layers`.
    """
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    options: dict[str, Any] = {
        "trust_remote_code": False,
        "local_files_only": offline,
        "dtype": dtype,
    }
    if revision is not None:
        options["revision"] = revision
    try:
        with _hub_out_of_reach(offline):
            return _load(str(source), layers, options, exact)
    # What runs out of memory may be another program's fault, and is told for every command alike.
    except (E2URecError, MemoryError, torch.OutOfMemoryError):
        raise
    # Each library under this call has exceptions of its own; tokenizers raises plain ones.
    except Exception as error:
        if offline and not Path(source).is_dir():
            commit = "" if revision is None else f" --revision {revision}"
            raise ModelError(
                f"model '{source}': is named by the run folder, and is not on this machine; if you "
                f"trust it, get it first: hf download {source}{commit}"
            ) from error
        raise ModelError(
            f"model '{source}': cannot be loaded ({_reason(error)}); "
            "give a Hugging Face name that is reachable, a local folder, or smollm2-135m"
        ) from error


def load_frozen(
    source: str | Path,
    *,
    layers: int | None = None,
    revision: str | None = None,
    offline: bool = False,
    quantize: Quantisation | None = None,
) -> Backbone:
    """Load a language model that nobody moves, in the precision in which it is stored.

    It answers as in float32; see `stored_weights`. What is not stored in safetensors, or not
    all in fewer bits, is held in float32.

    Args:
        source: as in `load_backbone`, as are all others.
        layers: keep only the first blocks.
        revision: commit of a hub name.
        offline: nothing is asked of the hub.
        quantize: bits in which linear layers are kept; None: those of the files.
    """
    options: dict[str, Any] = {"layers": layers, "revision": revision, "offline": offline}
    backbone = load_backbone(source, dtype=quantize or "auto", **options)
    if backbone.lm.dtype == torch.float32:
        return backbone
    # The settings of a model say in which precision it is loaded, and need not tell the truth.
    folder, _ = base_folder(source, revision)
    if quantize is None and holds_float32(folder):
        return load_backbone(source, **options)
    stored_weights.keep_stored(backbone.lm)
    return backbone


def load_split_backbone(source: str | Path, **options: Any) -> Backbone:
    """A frozen model in float32, its blocks split among the processes of a launcher; see `fsdp`.

    One process alone holds it whole, as `load_frozen` does.

    Raises:
        ConfigError: PyTorch is too old for it.
        ModelError: as `load_backbone` does, or the blocks are not found.
    """
    if process_count() == 1:
        return load_frozen(source, **options)
    mesh = fsdp.new_mesh()
    device = default_device()
    # One after another, so that the machine's memory holds one whole base at a time.
    for number in range(process_count()):
        if number == rank():
            with on_cpu():
                backbone = load_backbone(source, **options)
            lm = backbone.lm.requires_grad_(False)
            fsdp.split_blocks(lm, mesh)
            lm.to(device)
            if device.type != "cpu":
                lm.set_attn_implementation("sdpa")
        wait_for_all()
    return backbone


def _reason(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _hub_out_of_reach(offline: bool) -> Iterator[None]:
    """Have nothing at all asked of the hub meanwhile, where `offline` says so.

    `local_files_only` asks it for no file, but each look for one asks it which agents it knows.
    """
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _load(source: str, layers: int | None, options: dict[str, Any], exact: bool) -> Backbone:
    gguf_file = find_gguf(Path(source))
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    # Transformers would put it onto its base, and we could switch it off with our own.
    if (Path(source) / "adapter_config.json").is_file():
        raise ModelError(
            f"model '{source}': is an adapter and no whole model; merge it into its base, and name "
            "the folder of that"
        )
    dtype = options.pop("dtype")
    if dtype in ("4bit", "8bit"):
        refuse_packed_gguf(source, dtype)
    # What is unpacked from a GGUF file has no precision of its own.
    if gguf_file is not None:
        dtype = torch.float32
    config = AutoConfig.from_pretrained(source, **options)
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    if layers is not None:
        check_layers(layers, config, source)
        options["num_hidden_layers"] = layers
    device = default_device()
    options |= _placement(device, is_unpacked=gguf_file is not None)
    if dtype in ("4bit", "8bit"):
        options |= loading_options(dtype, device)
        # The other layers are those of a frozen base as well.
        dtype = "auto"
    if exact:
        # We write no other; a pickled file that lies there is not ours.
        options["use_safetensors"] = True
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    lm, loading = loader.from_pretrained(source, dtype=dtype, output_loading_info=True, **options)
    _check_weights(source, loading, exact)
    # The weights of a GGUF file are unpacked to float32: nothing quantised is left to describe.
    if gguf_file is not None:
        lm.hf_quantizer = None
        del lm.config.quantization_config
    # Packed weights are where they stay.
    if is_quantised(lm):
        settle(lm)
    else:
        lm = lm.to(device)
    return Backbone(lm.eval(), tokenizer, source)


def _placement(device: torch.device, *, is_unpacked: bool) -> dict[str, Any]:
    """How and where a model is loaded that will run on `device`."""
    if device.type == "cpu":
        # The backward pass of the fused attention kernel is slower there than plain products.
        return {"attn_implementation": "eager"}
    # Read to where the model runs, so that none of it waits in the memory of the machine.
    return {} if is_unpacked else {"device_map": {"": device}}


def _check_weights(source: str, loading: Mapping[str, Any], exact: bool) -> None:
    """Raise ModelError where a layer was left at its initial, random values, or a weight unused."""
    kinds = ["missing_keys", "mismatched_keys"]
    if exact:
        kinds.append("unexpected_keys")
    for kind in kinds:
        keys = sorted(map(str, loading[kind]))
        if keys:
            reason = kind.removesuffix("_keys")
            raise ModelError(
                f"model '{source}': {len(keys)} {reason} weights, such as {keys[0]}, so it is not "
                "the model that its settings describe; restore it, or name another"
            )


def find_gguf(folder: Path) -> str | None:
    """Name of the GGUF file in `folder`, if there is such a folder and file."""
    files = sorted(folder.glob("*.gguf")) if folder.is_dir() else []
    return files[0].name if files else None


def refuse_packed_gguf(source: str | Path, quantize: Quantisation | None) -> None:
    """Raise ConfigError where a GGUF file would have to be packed anew."""
    if quantize is not None and find_gguf(Path(source)) is not None:
        raise ConfigError(
            f"model.quantize={quantize}: '{source}' is a GGUF file, which is unpacked to float32 "
            "and not packed again; name its model in safetensors, or leave model.quantize out"
        )


def check_layers(layers: int, config: Any, source: str) -> None:
    """Raise ModelError unless a model has `layers` blocks and can do with no more."""
    # A model that reads pictures, too, keeps the number of its blocks elsewhere.
    if config.is_encoder_decoder or config.get_text_config() is not config:
        raise ModelError(
            f"model '{source}': layers={layers} works for decoders of text only; leave it out"
        )
    if not 1 <= layers <= config.num_hidden_layers:
        raise ModelError(
            f"model '{source}': layers={layers} is outside 1..{config.num_hidden_layers}; "
            "choose one inside"
        )
