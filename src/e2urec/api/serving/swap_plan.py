"""What a swap needs to know before it changes anything on a server, and what it refuses."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...core.errors import ConfigError, ServerError
from ...core.process import process_count
from ...core.say import Say, no_words
from ...runs.folder import Run
from ...runs.keys import controller_key
from ...runs.record import is_vouched
from ...runs.swaps import last_swap
from ..request import require_recommender
from .adapter_folder import adapter_folder, adapter_hash, export_missing, tell_limits
from .answers_check import CheckRows, check_rows, refuse_short_window
from .http_calls import LONGEST_TIMEOUT, read_api_key
from .vllm_server import LOAD, MODELS, TIMEOUT, ServedModel, VllmServer

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
        accept_alike: go on where the answers are no nearer to the run's own than the old ones.
        max_lora_rank: what the server was started with; None: it refuses by itself.
        timeout: seconds that each call to the server may take, to the end of its answer.
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
    accept_alike: bool = False
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
        was_made: whether the same swap was made before, and the server lists what it led to.
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
    was_made: bool = False

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
    folder = adapter_folder(run, options.adapter)
    path = options.server_path or str(folder.resolve())
    resets = _refuse_server(server, before, options, path)
    export_missing(run, folder, options.max_lora_rank, options.say)
    tell_limits(folder, options.max_lora_rank, options.say)
    sha256 = adapter_hash(folder)
    name = PREFIX + sha256[:HASH_DIGITS]
    for setting, other_name in (("--replaces", options.replaces), ("--alias", options.alias)):
        if other_name == name:
            raise ConfigError(
                f"{setting} '{name}': is the adapter of this run itself; choose another name"
            )
    old_adapters = _old_adapters(server, before, options, name)
    if options.alias is None and options.replaces is None:
        options.say(
            f"no adapter goes, and the old one answers on; lead clients to '{name}', then swap "
            "again with --replaces and the old one's name"
        )
    rows = check_rows(run, options.rows, options.key, options.say)
    refuse_short_window(server, _base_of(server, before), rows)
    vouched = is_vouched(run.path, run.record, secret)
    for sentence in [*rows.sentences(), *([] if vouched else [NO_MAC])]:
        options.say(sentence)
    plan = SwapPlan(
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
    plan = replace(plan, was_made=_was_made(plan, secret))
    _tell_same_folder(plan)
    return plan


# --- what is refused before anything is changed


def _refuse_options(run: Run, options: SwapOptions) -> None:
    require_recommender(run)
    if not run.adapted:
        raise ConfigError(
            f"'{run.path}': holds a whole model, which no running server exchanges; export it with "
            "--merged, serve it by a second server, lead requests there and stop the first"
        )
    # Written so that NaN fails it.
    has_limits = 0 < options.tolerance < math.inf and 0 < options.timeout <= LONGEST_TIMEOUT
    if options.rows < 1 or not has_limits:
        raise ConfigError(
            "swap: --rows, --tolerance and --timeout must be above 0, --tolerance finite, and "
            f"--timeout at most {LONGEST_TIMEOUT:.0f} seconds"
        )
    for setting, name in (("--alias", options.alias), ("--replaces", options.replaces)):
        if name is not None and (not name.strip() or not name.isprintable()):
            raise ConfigError(
                f"{setting} {name!a}: is empty or cannot be printed; give a name in one line"
            )
    if process_count() > 1:
        raise ConfigError("swap: is done by one process; start it without torchrun")


def _refuse_server(
    server: VllmServer, before: dict[str, ServedModel], options: SwapOptions, path: str
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
    old = before.get(options.alias or "")
    is_same_folder = old is not None and old.root == path
    if options.alias is not None and (is_same_folder or not server.keeps_folders_apart()):
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
    server: VllmServer, before: dict[str, ServedModel], options: SwapOptions, new_name: str
) -> list[ServedModel]:
    """The adapters that go besides the alias; says which others serve the same folder."""
    names = set() if options.replaces is None else {options.replaces}
    names.discard(options.alias)
    old = before.get(options.alias or "")
    for model in before.values():
        is_same = old is not None and model.root == old.root
        if not is_same or model.name in (options.alias, options.replaces, new_name):
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


def _has_names(before: dict[str, ServedModel], names: tuple[str | None, ...], path: str) -> bool:
    """Whether all these names are served from folder `path`."""
    models = [before.get(name or "") for name in names]
    return all(model is not None and model.root == path for model in models)


def _was_made(plan: SwapPlan, secret: bytes) -> bool:
    """Whether the run's last swap on this server is this one, and the server still shows it.

    The list alone shows a folder, which may hold another adapter by now.
    """
    alias = plan.options.alias
    if alias is None or not _has_names(plan.before, (plan.name, alias), plan.path):
        return False
    last = last_swap(plan.run, plan.server.url, secret)
    return last is not None and (last.alias, last.adapter_sha256) == (alias, plan.sha256)


def _tell_same_folder(plan: SwapPlan) -> None:
    """Say where what goes cannot come back."""
    old = plan.old
    if plan.was_made or old is None or old.root != plan.path:
        return
    plan.options.say(
        f"server '{plan.server.url}': '{old.name}' is served from '{plan.path}' already, which "
        "holds the adapter of this run by now: should the swap fail, what was served from there "
        "cannot come back; give each adapter a folder of its own"
    )
