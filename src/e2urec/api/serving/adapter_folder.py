"""The folder of the adapter that a swap has a server load."""

import hashlib
from pathlib import Path

from ...core.contents import hash_file
from ...core.errors import ConfigError, RunError
from ...core.reading import read_object
from ...core.say import Say
from ...models import adapter_files
from ...runs.folder import Run
from ...runs.record import NAME
from ..export import FILE, export
from .vllm_limits import limit_sentences, unserved_parts


def adapter_folder(run: Run, adapter: Path | None) -> Path:
    """The folder of the exported adapter, which need not be there yet."""
    if adapter is not None:
        return adapter
    # As `.`, a run has neither a name nor a place beside it.
    path = run.path.resolve()
    return path.with_name(f"{path.name}-adapter")


def export_missing(run: Run, folder: Path, max_lora_rank: int | None, say: Say) -> None:
    """Export the adapter where it is missing; refuse one of another run."""
    if not folder.exists():
        for parent in folder.resolve().parents:
            if (parent / NAME).is_file():
                raise ConfigError(
                    f"--adapter '{folder}': is inside the run '{parent}', which no file is added "
                    "to; name a folder beside it"
                )
        export(run, folder, "adapter", max_lora_rank=max_lora_rank)
        say(f"exported the adapter to '{folder}'")
    description = read_object(folder / FILE, "name a folder made by e2urec export --adapter")
    if description.get("run_sha256") != run.sha256:
        raise RunError(
            f"'{folder}': was not exported from '{run.path}' as it is now; name another with "
            "--adapter, or remove it"
        )


def tell_limits(folder: Path, max_lora_rank: int | None, say: Say) -> None:
    """Refuse what vLLM does not serve, and say what the server has to be started with."""
    config = read_object(folder / adapter_files.CONFIG_FILE, "export the adapter again")
    parts = unserved_parts(config)
    if parts:
        raise ConfigError(
            f"'{folder}': has {', '.join(parts)}, which vLLM does not serve; serve it by "
            "Transformers and PEFT"
        )
    rank = config["r"]
    if max_lora_rank is not None and rank > max_lora_rank:
        raise ConfigError(
            f"'{folder}': its adapter is of rank {rank}, and --max-lora-rank is "
            f"{max_lora_rank}; start the server with more"
        )
    if max_lora_rank is None:
        for sentence in limit_sentences(config):
            say(sentence)


def adapter_hash(folder: Path) -> str:
    """SHA-256 of an adapter's weights and settings, in hexadecimal."""
    names = (adapter_files.CONFIG_FILE, adapter_files.WEIGHTS_FILE)
    try:
        lines = [f"{name} {hash_file(folder / name)}" for name in names]
    except OSError as error:
        raise RunError(
            f"'{folder}': cannot be read ({error.strerror}); export the adapter again"
        ) from error
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
