"""Exchange the adapter that a running vLLM server serves for that of a run."""

import time
from datetime import UTC, datetime
from functools import partial

from ..core.contents import hash_file
from ..core.errors import ServerError
from ..core.process import signals_as_interrupt, uninterrupted
from ..runs.folder import Run
from ..runs.record import NAME
from ..runs.swaps import PrefixCache, ServedRecord, SwapRecord, write_swap
from .swap_check import largest_difference, require_same
from .swap_plan import SwapOptions, SwapPlan, plan_swap
from .swap_rollback import Rollback, root_of, settle
from .vllm_server import ServedModel

RESET_ATTEMPTS = 5
RESET_PAUSE_SECONDS = 0.2
"""Running requests hold the cache for about as long as they take."""


def swap(run: Run, url: str, options: SwapOptions | None = None) -> SwapRecord:
    """Load a run's adapter into a running vLLM server, and take the old one off it.

    The adapter is loaded under a name made from its hash, and its answers are compared with those
    of the run. Then the alias is moved, the prefix cache reset, and the old adapter unloaded. If
    any of it fails or is interrupted, the old adapter stays and the new one is unloaded.

    Args:
        run: holds an adapter.
        url: of the server, such as `http://localhost:8000`.
        options: names, folder and tolerance.

    Raises:
        ConfigError: a setting, a run that holds a whole model, or an adapter that vLLM does not
            serve.
        RunError: the folder of the adapter is of another run.
        DataError: no test row is left to compare on.
        ServerError: the server cannot be reached, refuses, or answers otherwise than the run.
    """
    plan = plan_swap(run, url, options or SwapOptions())
    with signals_as_interrupt():
        return _make(plan)


def _make(plan: SwapPlan) -> SwapRecord:
    """Make the swap; whatever fails, all is taken back."""
    alias = plan.options.alias
    server = plan.server
    # First, while the old one is there as it was.
    old_difference = _old_difference(plan)
    seconds = None
    with Rollback(server, plan.options.say) as rollback:
        _load(plan, rollback)
        differences = [require_same(server, plan.name, plan.rows, plan.options.tolerance)]
        if alias is not None and root_of(server, alias) != plan.path:
            seconds = _move_alias(plan, alias, rollback)
        confirmations = [_reset(plan)]
        if alias is not None:
            differences.append(require_same(server, alias, plan.rows, plan.options.tolerance))
        for model in plan.old_adapters:
            rollback.add(partial(settle, server, model.name, model.root))
            server.unload(model.name)
        # Again: until it was unloaded, the old one may have answered.
        confirmations.append(_reset(plan))
        after = _read_back(plan)
        # An interrupt in between would take back what is recorded as done.
        with uninterrupted():
            record = SwapRecord(
                time=datetime.now(UTC).isoformat(timespec="milliseconds"),
                server=server.url,
                server_version=server.version(),
                run_sha256=hash_file(plan.run.path / NAME),
                adapter=plan.name,
                adapter_sha256=plan.sha256,
                alias=alias,
                old_adapters=tuple(model.name for model in plan.old_adapters),
                rows=len(plan.rows),
                largest_difference=max(differences),
                tolerance=plan.options.tolerance,
                old_difference=old_difference,
                seconds_without_alias=seconds,
                prefix_cache=_prefix_cache(plan, all(confirmations)),
                before=_served(plan.before),
                after=_served(after),
            )
            file = write_swap(plan.run, record, plan.key)
            rollback.steps.clear()
            plan.options.say(f"the swap is recorded in '{file}'")
    return record


def _load(plan: SwapPlan, rollback: Rollback) -> None:
    """Load the adapter under its own name, where it is not there yet."""
    same_name = plan.before.get(plan.name)
    if same_name is None:
        rollback.add(partial(settle, plan.server, plan.name, None))
        plan.server.load(plan.name, plan.path)
    elif same_name.root != plan.path:
        raise ServerError(
            f"server '{plan.server.url}': serves '{plan.name}' from '{same_name.root}' already, "
            f"and not from '{plan.path}'; name that folder with --server-path, or unload it"
        )


def _move_alias(plan: SwapPlan, alias: str, rollback: Rollback) -> float | None:
    """Have the alias stand for the new adapter; for how many seconds it stood for none.

    vLLM has no aliases: an adapter is loaded a second time under that name. It could replace the
    old one in place (`load_inplace`), but then vLLM reads the adapter from the disk at every step
    from then on (its issue 33791, not mended in 0.32.0), and answers to requests under way mix
    both. So the old one is unloaded, and clients are refused until the new one is there.
    """
    server = plan.server
    old = plan.old_alias
    rollback.add(partial(_reset, plan))
    rollback.add(partial(settle, server, alias, None if old is None else old.root))
    # Whoever interrupts here would make it take longer.
    with uninterrupted():
        start = time.monotonic()
        if old is not None:
            server.unload(alias)
        server.load(alias, plan.path)
        return None if old is None else time.monotonic() - start


def _reset(plan: SwapPlan) -> bool:
    """Reset the prefix cache, where the server offers it; whether the server said that it did.

    Before vLLM 0.32 the cache knows an adapter by its name alone: under the alias, the new one
    would go on from states that the old one computed (vLLM's issue 42125).
    """
    if not plan.resets:
        return False
    for _ in range(RESET_ATTEMPTS):
        success = plan.server.reset_prefix_cache()
        if success is not False:
            return success is True
        # Requests that were running still held their states.
        time.sleep(RESET_PAUSE_SECONDS)
    raise ServerError(
        f"server '{plan.server.url}': did not reset its prefix cache in {RESET_ATTEMPTS} attempts, "
        "since requests hold it; try again when there are fewer"
    )


def _read_back(plan: SwapPlan) -> dict[str, ServedModel]:
    """The list of models, after it was seen that it is as it should be."""
    after = plan.server.models()
    expected = {plan.name: plan.path}
    if plan.options.alias is not None:
        expected[plan.options.alias] = plan.path
    for name, root in expected.items():
        if name not in after or after[name].root != root:
            raise ServerError(
                f"server '{plan.server.url}': does not list '{name}' as served from '{root}'; see "
                "that nobody else changes its adapters"
            )
    for model in plan.old_adapters:
        if model.name in after:
            raise ServerError(
                f"server '{plan.server.url}': lists '{model.name}' after it was unloaded; see that "
                "nobody else changes its adapters"
            )
    return after


def _old_difference(plan: SwapPlan) -> float | None:
    """By how much the adapter that goes differs from the run's answers; None: it does not say."""
    old = plan.old
    if old is None or old.root == plan.path:
        return None
    try:
        difference = largest_difference(plan.server, old.name, plan.rows)
    except ServerError as error:
        plan.options.say(f"the adapter that goes was not compared: {error}")
        return None
    if difference <= plan.options.tolerance:
        plan.options.say(
            "the adapter that goes answers these rows as the run does, to within "
            f"{difference:.3g}: the comparison cannot tell the two apart; lower --tolerance or "
            "raise --rows"
        )
    return difference


def _prefix_cache(plan: SwapPlan, confirmed: bool) -> PrefixCache:
    if plan.resets:
        return "reset" if confirmed else "unconfirmed"
    return "not offered" if plan.server.caches_prefixes() else "off"


def _served(models: dict[str, ServedModel]) -> tuple[ServedRecord, ...]:
    return tuple(ServedRecord(name=model.name, root=model.root) for model in models.values())
