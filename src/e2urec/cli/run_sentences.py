"""What a run is and from what it was made, a sentence each."""

from collections.abc import Iterator, Mapping

from ..runs.folder import Run
from ..runs.record import RunRecord
from ..runs.rehearsal import read_rehearsal
from ..runs.swaps import swap_sentences
from .failures import one_line

DROPPED = {
    "duplicates_dropped": "exact duplicates of earlier rows",
    "unrated_dropped": "rows without a rating",
}


def run_sentences(run: Run, counts: Mapping[str, int], key: bytes | None = None) -> Iterator[str]:
    """The sentences on a run.

    Args:
        run: the run.
        counts: rows by part, after a request.
        key: the controller's, if it is at hand: under it the MACs of the rehearsal and of swaps
            are checked.
    """
    record = run.record
    for name, meaning in DROPPED.items():
        if record.rows.get(name):
            yield f"{record.rows[name]} {meaning} were dropped"
    if "removed" in counts:
        verb = "was" if counts["forget"] == 1 else "were"
        yield removed_sentence(counts, "went", f"{verb} forgotten")
    if record.note is not None:
        yield record.note
    if len(record.chain) > 1:
        yield f"request {len(record.chain)} of a chain: all earlier ones stay honoured"
    yield from _origin(record)
    rehearsal = read_rehearsal(run, key)
    if rehearsal is not None:
        yield rehearsal.sentence()
    if record.kind in ("original", "unlearned"):
        yield _scores_sentence(record.rows)
    # Names that a server listed may hold anything.
    yield from map(one_line, swap_sentences(run, key))


def _origin(record: RunRecord) -> Iterator[str]:
    """From what an unlearned run was made, and how its settings were come by."""
    if record.method is None or record.parent is None:
        return
    yield f"method {record.method.name}, from {record.parent.path}"
    if record.rehearsal is not None:
        yield record.rehearsal.sentence()
    yield "Still holding the forgotten data: that original, its backups, and earlier runs."


def _scores_sentence(rows: Mapping[str, int]) -> str:
    """Whether a run has out-of-fold scores, and whose rows helped to make them."""
    if "scores" not in rows:
        return "no out-of-fold scores; e2urec prepare makes them"
    text = f"out-of-fold scores of {_count(rows['scores'], 'row')}"
    if rows.get("scores_made_with_erased_rows"):
        text += ", made with the help of rows erased since; e2urec prepare makes them anew"
    return text


def removed_sentence(rows: Mapping[str, int], go: str, forgotten: str) -> str:
    """What goes, in one sentence."""
    removed = _count(rows["removed"], "row")
    users = _count(rows["removed_users"], "user")
    prompts = _count(rows["forget"], "training prompt")
    text = f"{removed} of {users} {go}; {prompts} {forgotten}"
    if rows.get("others_rewritten"):
        rewritten = _count(rows["others_rewritten"], "other")
        text += f", {rewritten} written anew without what goes"
    if rows.get("skipped"):
        text += f"; {_count(rows['skipped'], 'name')} of the request skipped: the data hold none"
    return text


def _count(number_of: int, noun: str) -> str:
    """`1 row`, `2,342 rows`."""
    return f"{number_of:,} {noun}" + ("" if number_of == 1 else "s")
