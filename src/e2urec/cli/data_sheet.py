"""What `e2urec data` prints."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..data.overview import Overview
from .terminal import print_json, speaker

BAR_WIDTH = 30
RANDOM_ORDER = (
    "order: random, by the seed (data.order); times are ignored, and each user's own rows are cut "
    "into training, validation and test"
)


def show_data(summary: Overview, *, as_json: bool) -> None:
    """What data hold, and what of them will hurt."""
    if as_json:
        print_json(vars(summary))
        return
    console = Console()
    say = speaker(console)
    size = f"{summary.rows:,} rows of {summary.users:,} users and {summary.items:,} items"
    if summary.order == "time":
        say(f"{size}, {summary.since} to {summary.until}")
    else:
        say(size)
        say(RANDOM_ORDER)
    if summary.duplicates:
        say(f"{summary.duplicates:,} exact duplicates were dropped")
    if summary.unrated:
        say(f"{summary.unrated:,} rows without a rating were dropped")
    if summary.unescaped:
        say(
            f"{summary.unescaped:,} items had HTML entities in their text, which are characters now"
        )
    spread = summary.rows_per_user
    say(f"rows a user: {spread['least']:g} to {spread['most']:g}, median {spread['median']:g}")
    _show_ratings(console, summary.ratings)
    say(f"liked: {summary.liked:.0%}")
    say("samples: " + ", ".join(f"{part} {rows:,}" for part, rows in summary.samples.items()))
    if summary.tokens:
        say("tokens a prompt: " + ", ".join(f"{key} {n:g}" for key, n in summary.tokens.items()))
    for place, example in enumerate(summary.examples, start=1):
        console.rule(f"example {place}", style="dim")
        say(example)
    console.rule(style="dim")
    for warning in summary.warnings:
        console.print(f"[yellow]![/] {escape(warning)}", highlight=False)
    if not summary.warnings:
        say("Nothing that will hurt was found.")


def _show_ratings(console: Console, ratings: Mapping[str, int]) -> None:
    """A bar a rating."""
    table = Table("rating", "rows", "", box=None)
    largest = max(ratings.values())
    for rating, rows in ratings.items():
        # One block at least: a rating that few gave is still there.
        length = max(1, round(BAR_WIDTH * rows / largest))
        bar = "█" * length
        table.add_row(rating, f"{rows:,}", bar)
    console.print(table)
