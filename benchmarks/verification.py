"""What it costs to hash every file that a command reads or writes: seconds, and their share.

    python benchmarks/verification.py --original RUN --work DIR [--json]

`RUN` is a run folder of `e2urec train`. Each command is a process of its own, as a user's is. The
request is of 4% of the users: one of more takes longer, and hashes no more.
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

from common import add_json, add_original, option_parser
from e2urec import cli

REQUEST = ("--forget-ratio", "0.04", "--seed", "1")


class HashClock:
    """`hashlib.file_digest`, and how long it took in all."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._digest = hashlib.file_digest

    def __call__(self, *arguments: Any) -> Any:
        """The digest."""
        started = time.perf_counter()
        try:
            return self._digest(*arguments)
        finally:
            self.seconds += time.perf_counter() - started


def command(words: list[str], answer: Path) -> None:
    """Run a command line in this process; `answer` gets seconds of all and of hashing."""
    clock = HashClock()
    hashlib.file_digest = clock  # type: ignore[assignment]
    sys.argv = ["e2urec", *words]
    started = time.perf_counter()
    try:
        cli.main()
    except SystemExit as stop:
        status = stop.code
    total = time.perf_counter() - started
    answer.write_text(json.dumps({"status": status, "seconds": total, "hashing": clock.seconds}))


def measure(original: Path, work: Path) -> dict[str, dict[str, float]]:
    """Seconds of each command and of its hashing."""
    work.mkdir(parents=True, exist_ok=True)
    lines = {
        "show": ["show", str(original)],
        "unlearn": ["unlearn", str(original), "--out", str(work / "unlearned"), *REQUEST],
    }
    report = {}
    for name, words in lines.items():
        answer = work / f"{name}.json"
        process = multiprocessing.get_context("spawn").Process(target=command, args=(words, answer))
        process.start()
        process.join()
        report[name] = json.loads(answer.read_text())
    return report


def options() -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    add_original(parser)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = options()
    report = measure(arguments.original, arguments.work)
    if arguments.json:
        print(json.dumps(report, indent=1))
        return
    for name, figures in report.items():
        share = figures["hashing"] / figures["seconds"]
        print(
            f"{name:10} {figures['seconds']:7.1f} s, hashing {figures['hashing']:5.2f} s, "
            f"{share:.1%}, status {figures['status']}"
        )


if __name__ == "__main__":
    main()
