"""How fast and how large data preparation is: rows of generated ratings with Zipf items, without text and with it.

    python benchmarks/preparation.py [--rows 1 5 25] [--json]

Without text: validation, order, split, histories and the resolution of a request, at so many million rows, each size in
a process of its own; the peak of the resident set includes the table itself. With text: prompts and their tokens a
row, against a loop that writes and tokenises them one by one, and whether the tokens are the same.
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

from e2urec.data.fetch import fetch
from e2urec.data.interactions import Interactions
from e2urec.data.prompts import TEMPLATES
from e2urec.data.requests import ErasureRequest, resolve
from e2urec.data.splits import SplitSettings, split
from e2urec.models.backbone import load_backbone
from e2urec.models.tokens import tokenise
from e2urec.models.verbaliser import prompt_ids

ITEMS = 60_000


def tables(rows: int, *, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Ratings of rows/150 users over five years, in no order, and the items' titles; popularity is Zipf's."""
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, ITEMS + 1)
    items = np.searchsorted(np.cumsum(weights / weights.sum()), random.random(rows)).clip(
        max=ITEMS - 1
    )
    ratings = pl.DataFrame(
        {
            "user": random.integers(0, max(2, rows // 150), rows, dtype=np.int32),
            "item": items.astype(np.int32),
            "rating": random.integers(1, 6, rows).astype(np.float32),
            "time": random.integers(1_500_000_000, 1_660_000_000, rows),
        }
    )
    titles = [f"The {k % 977} of {k // 977} ({1950 + k % 70})" for k in range(ITEMS)]
    return ratings, pl.DataFrame({"item": np.arange(ITEMS, dtype=np.int32), "title": titles})


def without_text(rows: int) -> dict[str, Any]:
    """Seconds by step, rows a second and peak bytes of one size, in this process."""
    ratings, items = tables(rows)
    seconds, started = {}, time.perf_counter()

    def mark(name: str) -> None:
        seconds[name] = time.perf_counter() - started - sum(seconds.values())

    interactions = Interactions.from_tables(ratings, items, place="generated")
    mark("interactions")
    parts = split(interactions, SplitSettings(calibration=0), seed=0)
    mark("split")
    first = parts.train.interactions.first_rows
    assert (first[parts.train.rows] <= parts.train.rows).all()
    mark("histories")
    found = resolve(ErasureRequest.draw(parts.train, 0.2, 42), parts)
    mark("request")
    total = sum(seconds.values())
    return {
        "rows": rows,
        "seconds": seconds,
        "total": total,
        "rows_per_second": rows / total,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "forget": len(found.forget),
        "retain": len(found.retain),
    }


def with_text(rows: int, template: str) -> dict[str, Any]:
    """Rows a second of text and tokens, ours and a plain loop's, on the same samples in the same process."""
    tokenizer = load_backbone(fetch("smollm2-135m"), layers=1).tokenizer
    ratings, items = tables(max(rows * 3, 200_000))
    parts = split(
        Interactions.from_tables(ratings, items, place="generated"),
        SplitSettings(calibration=0),
        seed=0,
    )
    samples = parts.train.take(np.arange(rows))
    prompt = TEMPLATES[template]
    started = time.perf_counter()
    plain = [
        prompt_ids(tokenizer, ["".join(pieces)], seq2seq=False)[0]
        for pieces in prompt.pieces_of(samples)
    ]
    loop = time.perf_counter() - started
    started = time.perf_counter()
    ours = tokenise(samples, prompt, tokenizer, seq2seq=False, window=512)
    fast = time.perf_counter() - started
    same = np.array_equal(ours.tokens, np.concatenate([row[-512:] for row in plain]))
    return {
        "rows": rows,
        "loop": rows / loop,
        "ours": rows / fast,
        "ratio": loop / fast,
        "same_tokens": same,
    }


def main() -> None:
    """Read the arguments; measure; print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=float, nargs="*", default=[1, 5, 25], help="millions of rows, without text"
    )
    parser.add_argument("--prompts", type=int, default=100_000, help="rows with text")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(without_text(int(given.one * 1e6))))
        return
    found: dict[str, Any] = {"without_text": [], "with_text": {}}
    for rows in given.rows:
        child = subprocess.run(
            [sys.executable, __file__, "--one", str(rows)],
            check=True,
            capture_output=True,
            text=True,
        )
        found["without_text"].append(json.loads(child.stdout.splitlines()[-1]))
    for template in TEMPLATES:
        found["with_text"][template] = with_text(given.prompts, template)
    if given.json:
        print(json.dumps(found))
        return
    for one in found["without_text"]:
        steps = ", ".join(f"{step} {value:.1f}" for step, value in one["seconds"].items())
        peak = one["peak_bytes"] / 1e9
        print(
            f"{one['rows']:>10,} rows  {one['total']:6.1f} s  {one['rows_per_second']:>9,.0f} a second  {peak:.2f} GB"
        )
        print(f"                 {steps}")
    for template, one in found["with_text"].items():
        print(
            f"{template:8} {one['loop']:7,.0f} rows a second by a loop, {one['ours']:7,.0f} by ours: "
            f"{one['ratio']:.1f} times; tokens the same: {one['same_tokens']}"
        )


if __name__ == "__main__":
    main()
