"""What of a comparison can be made side by side, and what has to be there before.

Originals come first. Then all that needs nothing but an original, then what waits for settings to
be chosen.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from ...evaluation.roles import ORIGINAL, PLACEBO_RETAIN, RoleKind
from .plan import DEVELOPMENT, Cell, ComparisonPlan, model_key, seed_folder


@dataclass(frozen=True)
class Bundle:
    """What one job makes, one after the other.

    Attributes:
        seed: of the original.
        keys: names of cells, of originals, of remembered users and of shadow models.
        is_needed: whether nothing can be measured without it, so that a failure is an error.
    """

    seed: int
    keys: tuple[str, ...]
    is_needed: bool = False


def shadows_key(seed: int, request: int) -> str:
    """Name of the shadow models of a seed and request; their folder goes by content."""
    return f"{seed_folder(seed)}/request-{request}/shadows"


def originals(plan: ComparisonPlan, remembered: Iterable[str] = ()) -> list[Bundle]:
    """The original of each seed, and whom that of the first seed remembers most."""
    first, *others = plan.recipe.compare.seeds
    bundles = [Bundle(first, (model_key(first), *remembered), is_needed=True)]
    for seed in others:
        bundles.append(Bundle(seed, (model_key(seed),), is_needed=True))
    return bundles


def independent(plan: ComparisonPlan) -> list[Bundle]:
    """What needs an original alone."""
    cells = [cell for cell in plan.cells() if not _waits(plan, cell)]
    bundles = _bundles(plan, cells)
    if plan.recipe.compare.shadows:
        for seed, request in plan.reported():
            key = shadows_key(seed, request)
            bundles.append(Bundle(seed, (key,), is_needed=True))
    return bundles


def dependent(plan: ComparisonPlan) -> list[Bundle]:
    """What waits for settings to be chosen."""
    cells = [cell for cell in plan.cells() if _waits(plan, cell)]
    return _bundles(plan, cells)


def _waits(plan: ComparisonPlan, cell: Cell) -> bool:
    if not plan.is_chosen or cell.request == DEVELOPMENT:
        return False
    # A placebo takes as many steps as the longest method, whose settings are chosen.
    if cell.role == PLACEBO_RETAIN:
        return True
    return cell.role.kind is RoleKind.UNLEARNED and len(plan.trials[cell.role.name]) > 1


def _bundles(plan: ComparisonPlan, cells: Iterable[Cell]) -> list[Bundle]:
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_group(plan, cell), []).append(cell)
    bundles = []
    for group in groups.values():
        keys = tuple(cell.key for cell in group)
        is_needed = group[0].role.kind in (RoleKind.ORIGINAL, RoleKind.RETRAINED)
        bundles.append(Bundle(group[0].seed, keys, is_needed))
    return bundles


def _group(plan: ComparisonPlan, cell: Cell) -> Hashable:
    """Cells of one group are made by one job."""
    # An original only answers, which takes less time than the start of a job.
    if cell.role == ORIGINAL:
        return cell.seed, cell.role
    # A sharded original is prepared once for all requests, and stays in memory.
    is_method = cell.role.kind is RoleKind.UNLEARNED
    if is_method and cell.request != DEVELOPMENT and plan.method(cell.role.name).prepares:
        return cell.seed, cell.role
    return cell
