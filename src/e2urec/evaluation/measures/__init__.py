"""Every measure there is: one file each, found by being there.

A file of this folder is a measure when it defines a subclass of `Measure` that has a name.
"""

import importlib
import pkgutil
from functools import cache

from ..measure import Measure


# Made once: measures have no state.
@cache
def all_measures() -> tuple[Measure, ...]:
    """One of each measure, in the order in which tables list them."""
    measures: list[Measure] = []
    for info in pkgutil.iter_modules(__path__, f"{__name__}."):
        module = importlib.import_module(info.name)
        for member in vars(module).values():
            if _is_measure(member, info.name):
                measures.append(member())

    def place(measure: Measure) -> tuple[int, str]:
        return measure.place, measure.name

    return tuple(sorted(measures, key=place))


def _is_measure(member: object, module: str) -> bool:
    """Whether a member is a measure of its own, not one that the module only imports."""
    if not isinstance(member, type) or not issubclass(member, Measure):
        return False
    return member.__module__ == module and hasattr(member, "name")
