"""The files that a base model is loaded from, by content: a name may come to mean others."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file

from ..core.contents import hash_file
from ..core.errors import ModelError
from ..core.reading import damaged

WEIGHTS = (".safetensors", ".gguf", ".bin")
"""In the order in which one kind is preferred where a folder holds several."""
LOW = ("BF16", "F16")
"""Precisions of fewer bits than float32, by the names of safetensors."""
SETTINGS = (
    "config.json",
    # PEFT's: Transformers would load the adapter on top of the model.
    "adapter_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
)


def base_folder(source: str | Path, revision: str | None = None) -> tuple[Path, str | None]:
    """Folder of a model that was loaded, and its commit where it came from the hub."""
    folder = Path(source)
    if folder.is_dir():
        return folder, None
    # The hub's cache has a folder for each commit, named by it. By now it is there: the hub, which
    # may have another commit since, is not asked.
    config = cached_file(str(source), "config.json", revision=revision, local_files_only=True)
    snapshot = Path(str(config)).parent
    return snapshot, snapshot.name


def base_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of a model's weights, settings and tokenizer, by file.

    Raises:
        RunError: a file cannot be read.
    """
    try:
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        return {path.name: hash_file(path) for path in files if _counts(path, files)}
    except OSError as error:
        raise damaged(folder, "restore the base model", error) from error


def holds_float32(folder: Path) -> bool:
    """Whether a matrix of a model is stored in float32, or it is not known how they are stored."""
    files = sorted(folder.glob("*.safetensors"))
    try:
        return not files or any(_has_float32_matrix(file) for file in files)
    except (SafetensorError, OSError):
        return True


def _has_float32_matrix(file: Path) -> bool:
    with safe_open(file, framework="pt") as tensors:
        names = list(tensors.keys())
        slices = [tensors.get_slice(name) for name in names]
        return any(part.get_dtype() not in LOW and len(part.get_shape()) > 1 for part in slices)


def _counts(path: Path, files: list[Path]) -> bool:
    """Whether a model is loaded by this file: the weights of the kind that is there, and others."""
    if path.suffix not in WEIGHTS:
        return path.name in SETTINGS
    suffixes = {file.suffix for file in files}
    preferred = next(suffix for suffix in WEIGHTS if suffix in suffixes)
    return path.suffix == preferred


def refuse_other_base(source: str | Path, revision: str | None, hashes: dict[str, str]) -> None:
    """Raise ModelError unless a base that was loaded has just the files that `hashes` says."""
    folder, _ = base_folder(source, revision)
    present = base_hashes(folder)
    for name in sorted(present.keys() | hashes.keys()):
        if present.get(name) != hashes.get(name):
            raise ModelError(
                f"base model '{folder}': {name} is not what the run was made from; put the base "
                "model back as it was, or train anew from this one"
            )
