"""How fast and how large data preparation is, on generated ratings with Zipf items.

    python benchmarks/preparation.py [--rows 1 5 25] [--json]

Without text: validation, order, split, histories and the resolution of a request, at so many
million rows, each size in a process of its own. The peak of the resident set includes the table
itself. With text: prompts and their tokens a row, against a loop that writes and tokenises them one
by one, and whether the tokens are the same.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import polars as pl

from common import add_json, option_parser
from e2urec.data.fetch import fetch
from e2urec.data.interactions import Interactions
from e2urec.data.prompts import TEMPLATES, PromptTemplate
from e2urec.data.requests import ErasureRequest, ForgetRetain, resolve
from e2urec.data.samples import Samples
from e2urec.data.splits import Split, SplitSettings, split
from e2urec.models.backbone import load_backbone
from e2urec.models.tokens import tokenise
from e2urec.models.verbaliser import prompt_ids

# About as many as MovieLens-25M has.
ITEMS = 60_000
ROWS_PER_USER = 150
MILLION = 1e6
# Enough rows for users whose history is long enough, however few prompts are written.
FEWEST_ROWS = 200_000
WINDOW = 512
# `ru_maxrss` is in KiB on Linux.
RSS_UNIT = 1024
# Nothing is tuned here, so no users are held out for choosing settings.
SETTINGS = SplitSettings(calibration=0)


# --- data


def tables(rows: int, *, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Ratings over five years in no order, and the items' titles; popularity is Zipf's."""
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, ITEMS + 1)
    bounds = np.cumsum(weights / weights.sum())
    draws = random.random(rows)
    # Rounding may leave the last bound below 1, and a draw beyond it.
    items = np.searchsorted(bounds, draws).clip(max=ITEMS - 1)
    user_count = max(2, rows // ROWS_PER_USER)
    ratings = pl.DataFrame(
        {
            "user": random.integers(0, user_count, rows, dtype=np.int32),
            "item": items.astype(np.int32),
            "rating": random.integers(1, 6, rows).astype(np.float32),
            "time": random.integers(1_500_000_000, 1_660_000_000, rows),
        }
    )
    titles = [title_of(item) for item in range(ITEMS)]
    catalogue = pl.DataFrame({"item": np.arange(ITEMS, dtype=np.int32), "title": titles})
    return ratings, catalogue


def title_of(item: int) -> str:
    """A title of its own for each item, with a year as films have it."""
    # 977 is prime, so that the numbers in the titles and the years do not repeat together.
    first = item % 977
    second = item // 977
    year = 1950 + item % 70
    return f"The {first} of {second} ({year})"


def read_tables(ratings: pl.DataFrame, items: pl.DataFrame) -> Interactions:
    """The tables, checked and in order."""
    return Interactions.from_tables(ratings, items, place="generated")


# --- without text


class Stopwatch:
    """Seconds by step, one after another."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._step_start = time.perf_counter()

    def end_step(self, name: str) -> None:
        """Note the seconds since the last step ended."""
        now = time.perf_counter()
        self.seconds[name] = now - self._step_start
        self._step_start = now


def without_text(rows: int) -> dict[str, Any]:
    """Seconds by step, rows a second and peak bytes of one size, in this process."""
    ratings, items = tables(rows)
    watch = Stopwatch()
    interactions = read_tables(ratings, items)
    watch.end_step("interactions")
    parts = split(interactions, SETTINGS, seed=0)
    watch.end_step("split")
    check_histories(parts.train)
    watch.end_step("histories")
    resolved = draw_and_resolve(parts)
    watch.end_step("request")
    total = sum(watch.seconds.values())
    return {
        "rows": rows,
        "seconds": watch.seconds,
        "total": total,
        "rows_per_second": rows / total,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT,
        "forget": len(resolved.forget),
        "retain": len(resolved.retain),
    }


def check_histories(samples: Samples) -> None:
    """Look up where each sample's user begins, which is where histories are cut."""
    first_rows = samples.interactions.first_rows[samples.rows]
    assert (first_rows <= samples.rows).all()


def draw_and_resolve(parts: Split) -> ForgetRetain:
    """The rows of a request of a fifth of the users."""
    request = ErasureRequest.draw(parts.train, 0.2, 42)
    return resolve(request, parts)


def without_text_apart(millions: float) -> dict[str, Any]:
    """`without_text` in a process of its own, so that the peak is that of one size."""
    command = [sys.executable, __file__, "--one", str(millions)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return report


# --- with text


def with_text(rows: int, template: PromptTemplate) -> dict[str, Any]:
    """Rows of text and tokens a second, ours and a plain loop's, on the same samples."""
    tokenizer = load_backbone(fetch("smollm2-135m"), layers=1).tokenizer
    # A third of the rows becomes training samples at least.
    interactions = read_tables(*tables(max(rows * 3, FEWEST_ROWS)))
    parts = split(interactions, SETTINGS, seed=0)
    samples = parts.train.take(np.arange(rows))
    start_time = time.perf_counter()
    plain = tokenise_in_loop(samples, template, tokenizer)
    loop_seconds = time.perf_counter() - start_time
    start_time = time.perf_counter()
    examples = tokenise(samples, template, tokenizer, seq2seq=False, window=WINDOW)
    seconds = time.perf_counter() - start_time
    plain_tokens = np.concatenate([tokens[-WINDOW:] for tokens in plain])
    return {
        "rows": rows,
        "loop": rows / loop_seconds,
        "ours": rows / seconds,
        "ratio": loop_seconds / seconds,
        "same_tokens": np.array_equal(examples.tokens, plain_tokens),
    }


def tokenise_in_loop(samples: Samples, template: PromptTemplate, tokenizer: Any) -> list[list[int]]:
    """Write and tokenise prompts one by one."""
    rows = []
    for pieces in template.pieces_of(samples):
        prompt = "".join(pieces)
        rows += prompt_ids(tokenizer, [prompt], seq2seq=False)
    return rows


# --- the command line


def show(report: dict[str, Any]) -> None:
    """Print both parts."""
    for size in report["without_text"]:
        gigabytes = size["peak_bytes"] / 1e9
        print(
            f"{size['rows']:>10,} rows  {size['total']:6.1f} s  "
            f"{size['rows_per_second']:>9,.0f} a second  {gigabytes:.2f} GB"
        )
        steps = [f"{step} {seconds:.1f}" for step, seconds in size["seconds"].items()]
        print(f"                 {', '.join(steps)}")
    for template, speed in report["with_text"].items():
        print(
            f"{template:8} {speed['loop']:7,.0f} rows a second by a loop, "
            f"{speed['ours']:7,.0f} by ours: {speed['ratio']:.1f} times; "
            f"tokens the same: {speed['same_tokens']}"
        )


def options() -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    parser.add_argument(
        "--rows", type=float, nargs="*", default=[1, 5, 25], help="millions of rows, without text"
    )
    parser.add_argument("--prompts", type=int, default=100_000, help="rows with text")
    add_json(parser)
    # What a process of its own is called with.
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Read the arguments; measure; print."""
    arguments = options()
    if arguments.one:
        rows = int(arguments.one * MILLION)
        print(json.dumps(without_text(rows)))
        return
    report = {
        "without_text": [without_text_apart(millions) for millions in arguments.rows],
        "with_text": {
            name: with_text(arguments.prompts, template) for name, template in TEMPLATES.items()
        },
    }
    if arguments.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
