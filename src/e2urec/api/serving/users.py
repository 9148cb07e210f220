"""Whose prompts a swap sends to no server: erased users', as far as can be known."""

import re
from pathlib import Path

import numpy as np

from ...core.arrays import Mask
from ...core.contents import hash_file
from ...core.errors import RunError
from ...core.say import Say
from ...data.interactions import Interactions
from ...data.samples import Samples
from ...runs.erased_rows import ErasedRows
from ...runs.folder import Run
from ...runs.record import NAME, RunRecord, read_record
from ..request import erased_rows_of

MIN_RATERS = 2
"""An item of one rater, whose row went, says nothing of what was asked for."""


def may_be_asked(run: Run, test: Samples, data: Interactions, key: Path | None, say: Say) -> Mask:
    """(n,) True for test samples that show no erased row, of users of whom none was erased.

    Counted as erased is what the run, those before it, and those made from it erased. The latter
    are looked for beside the run: an original may go live again after a request to it.

    Args:
        run: the run.
        test: n test samples of those rows that the run may use.
        data: all rows of its source.
        key: file of the controller's key; see `train`.
        say: told of what cannot be known.

    Raises:
        RunError: what the run itself erased cannot be read.
    """
    rows = _erased_rows(run, key, say)
    if rows is None:
        return np.ones(len(test), dtype=bool)
    erased = rows.marked(data)
    absent_count = len(rows.digests) - int(erased.sum())
    if absent_count > 0:
        say(
            f"{absent_count} erased rows are not in the data any more, so whose they were is not "
            "known: where a request named single rows, other rows of their users may be among "
            "those that the server is asked about"
        )
    # Where all rows of an item went, nothing says that its raters asked for it. Left out with
    # them, a request for a film that everybody rated would leave nobody.
    of_items = _rows_of_erased_items(data, erased)
    users = np.unique(data.user[erased & ~of_items])
    indexed_erased = rows.marked(test.interactions)
    shows_erased = indexed_erased[test.rows] | test.shows(indexed_erased)
    if data.prompts is not None and of_items.any():
        shows_erased |= _names_items(test, data, of_items)
        say(
            "the prompts came with the rows: those that name an item which a request erased by "
            "its id are left out, and those that name it otherwise are not known"
        )
    return ~np.isin(test.users, users) & ~shows_erased


def _erased_rows(run: Run, key: Path | None, say: Say) -> ErasedRows | None:
    """What the run and those made from it erased; None: nothing."""
    rows = erased_rows_of(run, key)
    unread_count = 0
    for later in runs_made_from(run):
        try:
            more = erased_rows_of(later, key)
        except RunError:
            unread_count += 1
            continue
        if rows is None or more is None:
            rows = rows or more
        else:
            rows = ErasedRows(rows.key, rows.digests | more.digests)
    if unread_count:
        say(
            f"'{run.path}': what was erased by {unread_count} runs made from it cannot be read "
            "(damaged, or under another controller key): their users may be among those that the "
            "server is asked about"
        )
    return rows


def runs_made_from(run: Run) -> list[Run]:
    """The runs in the same folder that requests to this one made, and requests to those."""
    candidates = _runs_in(run.path.resolve().parent)
    descendants: list[Run] = []
    hashes = {run.sha256}
    while hashes:
        children = {path: record for path, record in candidates.items() if _is_of(record, hashes)}
        descendants += [Run(path, record) for path, record in children.items()]
        hashes = {hash_file(path / NAME) for path in children}
        # None is visited twice, whatever the records say.
        for path in children:
            del candidates[path]
    return descendants


def _runs_in(folder: Path) -> dict[Path, RunRecord]:
    records = {}
    for file in sorted(folder.glob(f"*/{NAME}")):
        try:
            records[file.parent] = read_record(file.parent)
        except (RunError, OSError):
            continue
    return records


def _is_of(record: RunRecord, hashes: set[str]) -> bool:
    earlier = (record.parent, record.prepared_from)
    return any(parent is not None and parent.sha256 in hashes for parent in earlier)


def _rows_of_erased_items(data: Interactions, erased: Mask) -> Mask:
    """(n,) True for erased rows of items of which every row was erased, of two raters or more."""
    item_count = len(data.item_ids)
    rows = np.bincount(data.item, minlength=item_count)
    erased_rows = np.bincount(data.item[erased], minlength=item_count)
    is_erased = (rows == erased_rows) & (rows >= MIN_RATERS)
    rows_of_items: Mask = erased & is_erased[data.item]
    return rows_of_items


def _names_items(test: Samples, data: Interactions, of_items: Mask) -> Mask:
    """(n,) True where the own prompt of a rater of these rows' items names one by its id."""
    raters = np.unique(data.user[of_items])
    ids = map(str, data.item_ids.gather(np.unique(data.item[of_items])))
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ids))})(?!\w)", re.IGNORECASE)
    prompts = test.interactions.prompts
    assert prompts is not None, "the test samples are of the same data"
    texts = prompts.of_rows(test.rows)
    has_name = np.array([pattern.search(text) is not None for text in texts], dtype=bool)
    names_item: Mask = np.isin(test.users, raters) & has_name
    return names_item
