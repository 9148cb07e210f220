"""The split of rows that say themselves for what they were used.

A recommender that was made elsewhere has been tuned by now: which rows it saw is not ours to
choose. What is left to cut are the rows that it did not see.
"""

import numpy as np

from ..core.arrays import Ints, Mask
from ..core.errors import DataError
from ..core.seeding import stream
from .interactions import Interactions
from .samples import Samples
from .splits import Split, SplitSettings
from .written_prompts import HELD

TUNED_PARTS = ("train", "valid")
"""Parts on which a model was tuned or chosen."""
OUTSIDER_PARTS = ("calibration", "unseen")
"""Parts that must hold no user of those."""


def given_split(interactions: Interactions, settings: SplitSettings, *, seed: int) -> Split:
    """The rows by the part that they name; those held out are cut further.

    Held-out rows of users who were tuned on become validation and test rows, in equal numbers. Of
    other users, all rows become calibration or unseen rows, by the settings' shares of either. If
    none of the held-out users was tuned on, half of them make the validation and test rows.

    Args:
        interactions: rows that bring their prompts.
        settings: `unseen` and `calibration`.
        seed: chooses among the held-out rows and users.

    Raises:
        DataError: nothing was tuned on, or users who are to count as unknown were.
    """
    assert interactions.prompts is not None, "the rows say for what they were used"
    names = interactions.prompts.parts.to_numpy()
    masks = {name: names == name for name in Split.__dataclass_fields__}
    if not masks["train"].any():
        raise DataError("rows: none is a training row; give those that the model was tuned on")
    tuned_users = np.unique(interactions.user[np.isin(names, TUNED_PARTS)])
    is_known = np.isin(interactions.user, tuned_users)
    _refuse_known(masks, is_known)
    is_held = names == HELD
    held_known, outsiders = _held_rows(interactions.user, is_held, is_known, seed)
    valid_users, test_users = _cut(held_known, 1 / 2)
    total = settings.unseen + settings.calibration
    # With a share for neither there are no settings to choose, and all of them can be reported on.
    calibration_share = settings.calibration / total if total else 0.0
    calibration, unseen = _cut(outsiders, calibration_share)
    additions = {
        "valid": valid_users,
        "test": test_users,
        "calibration": calibration,
        "unseen": unseen,
    }
    parts = {}
    for name, mask in masks.items():
        rows = np.flatnonzero(mask)
        if name in additions:
            rows = np.sort(np.concatenate([rows, *additions[name]]))
        parts[name] = Samples(interactions, rows, settings.history)
    _refuse_common(parts)
    return Split(**parts)


def _refuse_common(parts: dict[str, Samples]) -> None:
    """Raise DataError where settings would be chosen on users on whom they are reported."""
    calibration, *others = (parts[name] for name in ("calibration", "unseen", "test"))
    for other in others:
        common_count = len(np.intersect1d(calibration.users, other.users))
        if common_count:
            raise DataError(
                f"rows: {common_count} users have rows in part calibration and in another one; "
                "give all rows of a user who was held out the same part"
            )


def _refuse_known(masks: dict[str, Mask], is_known: Mask) -> None:
    for name in OUTSIDER_PARTS:
        known_count = int((masks[name] & is_known).sum())
        if known_count:
            raise DataError(
                f"rows: {known_count} of part {name} are of users who have training or validation "
                "rows; call them test, or take these users out of the other parts"
            )


def _held_rows(
    users: Ints, is_held: Mask, is_known: Mask, seed: int
) -> tuple[list[Ints], list[Ints]]:
    """Groups of held-out rows in random order: those to validate and test on, and the outsiders'.

    A known user's row is a group of its own; an outsider's rows are one.
    """
    random = stream(seed, "held-out rows")
    known_rows = random.permutation(np.flatnonzero(is_held & is_known))
    is_outside = is_held & ~is_known
    outside_rows = np.flatnonzero(is_outside)
    # The rows of a user are together, so another one begins where the user changes.
    starts = np.flatnonzero(np.diff(users[outside_rows], prepend=-1))
    by_user = np.split(outside_rows, starts)[1:]
    groups = [by_user[k] for k in random.permutation(len(by_user))]
    if len(known_rows):
        return list(known_rows[:, None]), groups
    half = len(groups) // 2
    return groups[:half], groups[half:]


def _cut(groups: list[Ints], share: float) -> tuple[list[Ints], list[Ints]]:
    count = round(share * len(groups))
    return groups[:count], groups[count:]
