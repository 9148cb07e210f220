"""What a swap needs to know before it changes anything on a server, and what it refuses."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from ..core.contents import hash_file
from ..core.errors import ConfigError, RunError, ServerError
from ..core.reading import read_object
from ..core.say import Say, no_words
from ..models import adapter_files
from ..runs.folder import Run
from ..runs.keys import controller_key
from ..runs.record import NAME, is_vouched
from .export import FILE, export
from .request import require_recommender
from .swap_check import CheckRows, check_rows, refuse_short_window
from .vllm_limits import limit_sentences, unserved_parts
from .vllm_server import LOAD, MODELS, TIMEOUT, ServedModel, VllmServer, read_api_key

PREFIX = "e2urec-"
"""Of the names under which adapters are loaded; then comes their hash."""
HASH_DIGITS = 16
ROWS = 64
# The head of a bf16 model rounds logits between 16 and 32 in steps of 0.125, and a log-probability
# is a difference of two.
TOLERANCE = 0.2
"""Nats by which a log-probability may differ by default; a float32 server needs 0.001."""
NO_MAC = (
    "the record of the swap gets no MAC, since the run has none that holds under this controller "
    "key"
)


@dataclass(frozen=True)
class SwapOptions:
    """How an adapter goes live.

    Attributes:
        alias: name by which clients ask, whatever adapter it stands for.
        replaces: name of the adapter that goes; None: what the alias stood for, if there is one.
        adapter: folder of the exported adapter; made where it is missing. None: beside the run.
        server_path: the same folder as the server sees it; None: by the same path.
        rows: test rows, at most, on which log-probabilities are compared.
        tolerance: by how much these may differ, in nats.
        max_lora_rank: what the server was started with; None: it refuses by itself.
        timeout: seconds that one answer of the server may take.
        api_key: file of the server's key; None: as the environment says.
        key: file of the controller's key; see `train`.
        say: told what whoever serves it should know.
    """

    alias: str | None = None
    replaces: str | None = None
    adapter: Path | None = None
    server_path: str | None = None
    rows: int = ROWS
    tolerance: float = TOLERANCE
    max_lora_rank: int | None = None
    timeout: float = TIMEOUT
    api_key: Path | None = None
    key: Path | None = None
    say: Say = no_words


@dataclass(frozen=True)
class SwapPlan:
    """A swap that nothing speaks against.

    Attributes:
        run: whose adapter goes live.
        server: on which it does.
        options: as the caller gave them.
        key: the controller's, for the record's MAC; None: the record gets none.
        before: what the server serves, by name.
        old_adapters: the adapters that go, besides what the alias stands for.
        name: under which the new one is loaded.
        sha256: of the new one.
        path: its folder as the server sees it.
        rows: what is asked, and what should be answered.
        resets: whether the server offers to reset its prefix cache.
    """

    run: Run
    server: VllmServer
    options: SwapOptions
    key: bytes | None = field(repr=False)
    before: dict[str, ServedModel]
    old_adapters: list[ServedModel]
    name: str
    sha256: str
    path: str
    rows: CheckRows
    resets: bool

    @property
    def old_alias(self) -> ServedModel | None:
        """What the alias stands for; None: nothing, or there is none."""
        return self.before.get(self.options.alias or "")

    @property
    def old(self) -> ServedModel | None:
        """The adapter that goes; None: the alias is new, and none goes."""
        return self.old_alias or next(iter(self.old_adapters), None)


def plan_swap(run: Run, url: str, options: SwapOptions) -> SwapPlan:
    """Ask the server, export the adapter and score the rows; raises as `swap` does."""
    _refuse_options(run, options)
    secret = controller_key(options.key)
    server = VllmServer(url, read_api_key(options.api_key), options.timeout)
    before = server.models()
    resets = _refuse_server(server, before, options)
    folder = _exported(run, options)
    _tell_limits(folder, options)
    sha256 = _adapter_hash(folder)
    name = PREFIX + sha256[:HASH_DIGITS]
    path = options.server_path or str(folder.resolve())
    old_adapters = _old_adapters(server, before, options, path)
    if name in (model.name for model in old_adapters):
        raise ConfigError(
            f"--replaces '{name}': is the adapter of this run itself; name the one that goes"
        )
    if options.alias is None and options.replaces is None:
        options.say(
            f"no adapter goes, and the old one answers on; lead clients to '{name}', then swap "
            "again with --replaces and the old one's name"
        )
    rows = check_rows(run, options.rows, options.key)
    refuse_short_window(server, _base_of(server, before), rows)
    vouched = is_vouched(run.path, run.record, secret)
    for sentence in [*rows.sentences(), *([] if vouched else [NO_MAC])]:
        options.say(sentence)
    return SwapPlan(
        run=run,
        server=server,
        options=options,
        key=secret if vouched else None,
        before=before,
        old_adapters=old_adapters,
        name=name,
        sha256=sha256,
        path=path,
        rows=rows,
        resets=resets,
    )


# --- what is refused before anything is changed


def _refuse_options(run: Run, options: SwapOptions) -> None:
    require_recommender(run)
    if not run.adapted:
        raise ConfigError(
            f"'{run.path}': holds a whole model, which no running server exchanges; export it with "
            "--merged, serve it by a second server, lead requests there and stop the first"
        )
    if options.rows < 1 or not options.tolerance > 0 or not options.timeout > 0:
        raise ConfigError("swap: --rows, --tolerance and --timeout must be above 0")


def _refuse_server(
    server: VllmServer, before: dict[str, ServedModel], options: SwapOptions
) -> bool:
    """Refuse a server that cannot do it; returns whether it can reset its prefix cache."""
    for name in (options.alias, options.replaces):
        if name in before and not before[name].is_adapter:
            raise ConfigError(
                f"server '{server.url}': '{name}' is its base model, and no adapter; choose "
                "another name"
            )
    if options.replaces is not None and options.replaces not in before:
        raise ConfigError(
            f"server '{server.url}': serves no '{options.replaces}'; it has: {', '.join(before)}"
        )
    if not server.takes_adapters():
        raise ServerError(
            f"server '{server.url}': offers no {LOAD}; start it with --enable-lora and "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
        )
    resets = server.can_reset()
    if resets or not server.caches_prefixes():
        return resets
    if options.alias is not None and not server.keeps_folders_apart():
        raise ServerError(
            f"server '{server.url}': offers no reset of its prefix cache, by which "
            f"'{options.alias}' would go on from states of the old adapter; start it with "
            "VLLM_SERVER_DEV_MODE=1 or --no-enable-prefix-caching, or leave out --alias"
        )
    options.say(
        f"server '{server.url}': offers no reset of its prefix cache (VLLM_SERVER_DEV_MODE=1): "
        "states that the old adapter computed stay in its memory until others take their place or "
        "it is restarted; no name leads to them"
    )
    return False


def _base_of(server: VllmServer, before: dict[str, ServedModel]) -> ServedModel:
    for model in before.values():
        if not model.is_adapter:
            return model
    raise ServerError(
        f"server '{server.url}': lists no base model at {MODELS}; name a vLLM server with --vllm"
    )


def _old_adapters(
    server: VllmServer, before: dict[str, ServedModel], options: SwapOptions, path: str
) -> list[ServedModel]:
    """The adapters that go besides the alias; says which others serve the same folder."""
    names = set() if options.replaces is None else {options.replaces}
    names.discard(options.alias)
    old = before.get(options.alias or "")
    for model in before.values():
        is_same = old is not None and model.root == old.root != path
        if not is_same or model.name in (options.alias, options.replaces):
            continue
        # An earlier swap loaded it, and nobody needs it any more.
        if model.name.startswith(PREFIX):
            names.add(model.name)
        else:
            options.say(
                f"server '{server.url}': '{model.name}' serves the old adapter as well, and goes "
                "on to; swap that name too"
            )
    return [before[name] for name in sorted(names)]


# --- the folder of the adapter


def _exported(run: Run, options: SwapOptions) -> Path:
    """The folder of the exported adapter, made where it is missing."""
    folder = options.adapter or run.path.with_name(f"{run.path.resolve().name}-adapter")
    if not folder.exists():
        export(run, folder, "adapter", max_lora_rank=options.max_lora_rank)
        options.say(f"exported the adapter to '{folder}'")
    description = read_object(folder / FILE, "name a folder made by e2urec export --adapter")
    if description.get("run_sha256") != hash_file(run.path / NAME):
        raise RunError(
            f"'{folder}': was not exported from '{run.path}' as it is now; name another with "
            "--adapter, or remove it"
        )
    return folder


def _tell_limits(folder: Path, options: SwapOptions) -> None:
    """Refuse what vLLM does not serve, and say what the server has to be started with."""
    config = read_object(folder / adapter_files.CONFIG_FILE, "export the adapter again")
    parts = unserved_parts(config)
    if parts:
        raise ConfigError(
            f"'{folder}': has {', '.join(parts)}, which vLLM does not serve; serve it by "
            "Transformers and PEFT"
        )
    rank = config["r"]
    if options.max_lora_rank is not None and rank > options.max_lora_rank:
        raise ConfigError(
            f"'{folder}': its adapter is of rank {rank}, and --max-lora-rank is "
            f"{options.max_lora_rank}; start the server with more"
        )
    if options.max_lora_rank is None:
        for sentence in limit_sentences(config):
            options.say(sentence)


def _adapter_hash(folder: Path) -> str:
    """SHA-256 of an adapter's weights and settings, in hexadecimal."""
    names = (adapter_files.CONFIG_FILE, adapter_files.WEIGHTS_FILE)
    try:
        lines = [f"{name} {hash_file(folder / name)}" for name in names]
    except OSError as error:
        raise RunError(
            f"'{folder}': cannot be read ({error.strerror}); export the adapter again"
        ) from error
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
