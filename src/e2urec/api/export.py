"""Give a recommender back to the world: as PEFT or Transformers alone load it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open

from ..core.errors import ConfigError, RunError
from ..core.reading import read_object
from ..experiments.packaged import resolve_model
from ..experiments.recipe import Recipe
from ..experiments.workspace import Workspace
from ..models import adapter_algebra, adapter_files
from ..models.base_files import base_folder
from ..models.recommender import Recommender
from ..runs.files import write_json
from ..runs.folder import Run, create_run
from .serving.vllm_limits import limit_sentences

Form = Literal["adapter", "merged"]

FILE = "e2urec.json"
"""What a folder that was given back says of itself."""
CONFIG_FILE = "config.json"
SCORE = "sigmoid(z[liked] - z[not_liked]), z the logits after the last token of the "
"""How a score is read; then comes whose token."""
SETS = ", where z of a list of tokens is the logarithm of the sum of exp(z) over them"
"""What is added where an answer is more than one token."""
PRECISIONS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""By the names of safetensors."""


@dataclass(frozen=True)
class Export:
    """What was given back.

    Attributes:
        path: the folder.
        form: `adapter` or `merged`.
        dtype: precision of its weights.
        sentences: what whoever serves it should know.
    """

    path: Path
    form: Form
    dtype: str
    sentences: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return vars(self) | {"path": str(self.path), "sentences": list(self.sentences)}


def export(run: Run, out: Path | str, form: Form, *, max_lora_rank: int | None = None) -> Export:
    """Write the recommender of a run as other programs load it, in the precision it came in.

    Args:
        run: a run that holds a recommender.
        out: folder to make.
        form: `adapter`: what `AutoPeftModelForCausalLM` loads, on its base; `merged`: a whole
            model, which `AutoModelForCausalLM` loads.
        max_lora_rank: highest rank that the server takes; None: not checked.

    Raises:
        ConfigError: the run is not to be had in this form, or its rank is too high.
        RunError: `out` exists, or the run holds no recommender.
        ModelError: its base is not at hand, or another one by now.
    """
    if run.record.kind not in ("original", "unlearned"):
        raise RunError(f"'{run.path}': is a {run.record.kind}; name a run that holds a recommender")
    recipe = Recipe.build(run.record.recipe, place=str(run.path))
    if form == "adapter":
        _refuse_no_adapter(run, recipe)
    elif recipe.model.quantize is not None:
        raise ConfigError(
            f"'{run.path}': its base is kept in {recipe.model.quantize}, into which no adapter is "
            "merged exactly; use --adapter"
        )
    model = Workspace(recipe, record=run.record).load(run)
    with create_run(Path(out)) as folder:
        if form == "adapter":
            dtype, sentences = _write_adapter(run, model, folder, max_lora_rank)
        else:
            dtype, sentences = _write_merged(run, model, folder)
        model.tokenizer.save_pretrained(str(folder))
        write_json(folder / FILE, _description(run, recipe, model, form))
    return Export(Path(out), form, dtype, sentences)


def _refuse_no_adapter(run: Run, recipe: Recipe) -> None:
    if not run.adapted:
        raise ConfigError(f"'{run.path}': holds a whole model, and no adapter; use --merged")
    if recipe.model.layers is not None:
        raise ConfigError(
            f"'{run.path}': is an adapter of the first {recipe.model.layers} layers of its base, "
            "which PEFT alone cannot cut; use --merged"
        )
    folder, _ = base_folder(resolve_model(recipe.model.name))
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"'{run.path}': is an adapter of '{folder}', which PEFT alone cannot load (it has no "
            f"{CONFIG_FILE}); use --merged"
        )


def _write_adapter(
    run: Run, model: Recommender, folder: Path, max_lora_rank: int | None
) -> tuple[str, list[str]]:
    """Write the adapter; its precision, and what to know of it."""
    rank = adapter_algebra.total_rank(model.lm, model.active)
    if max_lora_rank is not None and rank > max_lora_rank:
        raise ConfigError(
            f"'{run.path}': its adapter is of rank {rank}, and --max-lora-rank is {max_lora_rank}; "
            "raise it, or use --merged"
        )
    base = run.record.base
    assert base is not None, "an adapter whose base is not known is not loaded"
    place = Path(resolve_model(base.name))
    settings = {
        "task_type": "SEQ_2_SEQ_LM" if model.seq2seq else "CAUSAL_LM",
        # From wherever it will be loaded.
        "base_model_name_or_path": str(place.resolve()) if place.is_dir() else base.name,
        "revision": base.revision,
    }
    dtype = model.stored_dtype or "float32"
    (name,) = model.active
    adapter_files.save_adapter(
        model.lm, name, folder, dtype=getattr(torch, dtype), settings=settings
    )
    config = read_object(folder / adapter_files.CONFIG_FILE, "export it again")
    return dtype, [*limit_sentences(config), *_rounding_sentences(run, dtype)]


def _write_merged(run: Run, model: Recommender, folder: Path) -> tuple[str, list[str]]:
    """Write the whole model; its precision, and what to know of it."""
    dtype = model.stored_dtype or "float32"
    if model.active:
        dtype = _base_dtype(model.name)
        model.lm = adapter_algebra.merge(model.lm, model.active)
    # Merged in float32 and rounded once.
    model.lm.to(getattr(torch, dtype)).save_pretrained(str(folder))
    return dtype, _rounding_sentences(run, dtype)


def _rounding_sentences(run: Run, dtype: str) -> list[str]:
    if dtype == "float32":
        return []
    return [
        f"weights are rounded to {dtype}, as the model came; '{run.path}' keeps them in float32, "
        "and its figures are of those"
    ]


def _base_dtype(name: str) -> str:
    """The precision in which a base is stored."""
    folder, _ = base_folder(name)
    file = folder / CONFIG_FILE
    # The weights of a GGUF file are unpacked to float32.
    if not file.is_file():
        return "float32"
    # The weights themselves, since settings do not always say it.
    weights = sorted(folder.glob("*.safetensors"))
    if weights:
        return _stored_dtype(weights[0])
    config = read_object(file, "restore the base model")
    # Older versions of Transformers had another name for it.
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    return str(dtype)


def _stored_dtype(file: Path) -> str:
    with safe_open(file, framework="pt") as tensors:
        first = next(iter(tensors.keys()))
        return PRECISIONS.get(tensors.get_slice(first).get_dtype(), "float32")


def _description(run: Run, recipe: Recipe, model: Recommender, form: Form) -> dict[str, Any]:
    """What a server needs to ask the model as its run did, and from where it is."""
    base = run.record.base
    yes_tokens, no_tokens = model.verbaliser.tokens_of_answers
    score = SCORE + ("decoder" if model.seq2seq else "prompt")
    return {
        "form": form,
        "run_sha256": run.sha256,
        "base": None if base is None else base.model_dump(mode="json"),
        "layers": recipe.model.layers,
        "template": model.template.name,
        "template_source": getattr(model.template, "source", None),
        "window": model.window,
        "decoder": model.decoder_tokens() if model.seq2seq else None,
        "answers": {"liked": yes_tokens, "not_liked": no_tokens},
        "score": score + (SETS if model.verbaliser.sets else ""),
    }
