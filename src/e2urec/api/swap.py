"""Exchange the adapter that a running vLLM server serves for that of a run."""

import math
import time
from datetime import UTC, datetime
from functools import partial

from ..core.errors import ServerError
from ..core.process import signals_as_interrupt, uninterrupted
from ..runs.folder import Run
from ..runs.swaps import (
    FOLDER,
    PrefixCache,
    ServedRecord,
    SwapRecord,
    make_swaps_folder,
    write_swap,
)
from .serving.answers_check import largest_difference, require_same
from .serving.rollback import Rollback, settle
from .serving.swap_plan import SwapOptions, SwapPlan, plan_swap
from .serving.vllm_server import AlreadyLoadedError, ServedModel

RESET_ATTEMPTS = 5
RESET_PAUSE_SECONDS = 0.2
"""Running requests hold the cache for about as long as they take."""


def swap(run: Run, url: str, options: SwapOptions | None = None) -> SwapRecord:
    """Load a run's adapter into a running vLLM server, and take the old one off it.

    The adapter is loaded under a name made from its hash, and its answers are compared with those
    of the run. Then the alias is moved, the prefix cache reset, and the old adapter unloaded. If
    any of it fails or is interrupted, it is taken back, as far as the server lets that be done.

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
        _make_folder(plan, rollback)
        _load(plan, rollback)
        differences = [_compare(plan, plan.name, old_difference)]
        if alias is not None and not plan.was_made:
            seconds = _move_alias(plan, alias, rollback)
        confirmations = [_reset(plan)]
        if alias is not None:
            differences.append(_compare(plan, alias, old_difference))
        for model in plan.old_adapters:
            undo = partial(_restore, plan, model.name, model.root)
            rollback.add(_goal(model.name, model.root), undo)
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
                run_sha256=plan.run.sha256,
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


def _goal(name: str, root: str | None) -> str:
    """What a step of the rollback is to bring about."""
    return f"no '{name}'" if root is None else f"'{name}' from '{root}'"


def _make_folder(plan: SwapPlan, rollback: Rollback) -> None:
    """Make the folder of the record now: later its failure would cost the server two moves."""
    if make_swaps_folder(plan.run):
        folder = plan.run.path / FOLDER
        rollback.add(f"'{plan.run.path}' without '{FOLDER}'", folder.rmdir)


def _load(plan: SwapPlan, rollback: Rollback) -> None:
    """Load the adapter under its own name, where it is not there yet."""
    same_name = plan.before.get(plan.name)
    if same_name is not None and same_name.root != plan.path:
        raise ServerError(
            f"server '{plan.server.url}': serves '{plan.name}' from '{same_name.root}' already, "
            f"and not from '{plan.path}'; name that folder with --server-path, or unload it"
        )
    _require_unchanged(plan, _roots(plan.before))
    if same_name is None:
        undo = partial(settle, plan.server, plan.name, None, plan.path)
        rollback.add(_goal(plan.name, None), undo)
        _load_or_leave(plan, plan.name, rollback)


def _load_or_leave(plan: SwapPlan, name: str, rollback: Rollback) -> None:
    """Load the adapter; where somebody else has just taken that name, leave theirs there."""
    try:
        plan.server.load(name, plan.path)
    except AlreadyLoadedError:
        rollback.drop_last()
        raise


def _roots(models: dict[str, ServedModel]) -> dict[str, str]:
    return {name: model.root for name, model in models.items()}


def _require_unchanged(plan: SwapPlan, expected: dict[str, str]) -> None:
    """Raise ServerError where the list of models is not as the swap knows it."""
    roots = _roots(plan.server.models())
    changed_names = sorted(name for name, root in roots.items() if expected.get(name) != root)
    changed_names += sorted(expected.keys() - roots.keys())
    if changed_names:
        raise ServerError(
            f"server '{plan.server.url}': somebody else changed '{changed_names[0]}' on it since "
            "the swap began; see that nobody else changes its adapters, and try again"
        )


def _compare(plan: SwapPlan, name: str, old_difference: float | None) -> float:
    """The largest difference of model `name`, as `require_same` has it."""
    if plan.options.accept_alike:
        old_difference = None
    tolerance = plan.options.tolerance
    return require_same(plan.server, name, plan.rows, tolerance, old_difference)


def _move_alias(plan: SwapPlan, alias: str, rollback: Rollback) -> float | None:
    """Have the alias stand for the new adapter; for how many seconds it stood for none.

    vLLM has no aliases: an adapter is loaded a second time under that name. It could replace the
    old one in place (`load_inplace`), but then vLLM reads the adapter from the disk at every step
    from then on (its issue 33791, not mended in 0.32.0), and answers to requests under way mix
    both. So the old one is unloaded, and clients are refused until the new one is there.
    """
    server = plan.server
    old = plan.old_alias
    _require_unchanged(plan, _roots(plan.before) | {plan.name: plan.path})
    if plan.resets:
        # Where that is refused, the alias had better stay.
        server.reset_prefix_cache()
    rollback.add("an empty prefix cache", partial(_reset, plan))
    old_root = None if old is None else old.root
    rollback.add(_goal(alias, old_root), partial(_restore, plan, alias, old_root))
    # Whoever interrupts here would make it take longer.
    with uninterrupted():
        start = time.monotonic()
        if old is not None:
            server.unload(alias)
        _load_or_leave(plan, alias, rollback)
        return None if old is None else time.monotonic() - start


def _restore(plan: SwapPlan, name: str, old_root: str | None) -> None:
    """Have `name` stand for what it stood for."""
    settle(plan.server, name, old_root, plan.path)
    if old_root == plan.path:
        raise ServerError(
            "that folder holds the adapter of this run by now, so that the old one is gone"
        )


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
    if old is None or plan.was_made:
        return None
    try:
        difference = largest_difference(plan.server, old.name, plan.rows)
    except ServerError as error:
        plan.options.say(f"the adapter that goes was not compared: {error}")
        return None
    if not math.isfinite(difference):
        plan.options.say("the adapter that goes was not compared: its answers are no numbers")
        return None
    if plan.options.accept_alike and difference <= plan.options.tolerance:
        plan.options.say(
            "the adapter that goes answers these rows as the run does, to within "
            f"{difference:.3g}: the comparison need not tell the two apart, since --accept-alike "
            "was given"
        )
    return difference


def _prefix_cache(plan: SwapPlan, confirmed: bool) -> PrefixCache:
    if plan.resets:
        return "reset" if confirmed else "unconfirmed"
    return "not offered" if plan.server.caches_prefixes() else "off"


def _served(models: dict[str, ServedModel]) -> tuple[ServedRecord, ...]:
    return tuple(ServedRecord(name=model.name, root=model.root) for model in models.values())
