"""Run the commands of the tutorial and put what they print into the page.

    python docs/run_tutorial.py FOLDER

FOLDER is where the run folders go; it must be empty. A text block of the page that follows the
comment `<!-- output -->` gets what the last command above it prints on standard output. The comment
`<!-- output: Memory | Distance -->` cuts it: from the first line with *Memory* up to the first line
with *Distance*, that line not included; either may be left out.
"""

import argparse
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
PIECE = re.compile(
    r"```console\n(?P<commands>.*?)```\n"
    r"|<!-- output(?P<marks>.*?) -->\n```text\n.*?```\n",
    re.S,
)
COLUMNS = "88"
"""Width of the tables: what a page shows without scrolling on a desktop."""


def commands(block: str) -> list[str]:
    """The lines that a reader types."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def run(lines: list[str], folder: Path) -> str:
    """What the last of the commands prints on standard output."""
    environment = os.environ | {"COLUMNS": COLUMNS}
    output = ""
    for line in lines:
        print(f"$ {line}", flush=True)
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise SystemExit(f"status {done.returncode}: {line}")
        output = done.stdout
    return output.replace(str(folder.resolve()), "…")


def cut(output: str, marks: str) -> str:
    """The part of `output` between two marks; see the head of this file."""
    first, _, last = (part.strip() for part in marks.removeprefix(":").partition("|"))
    lines = [line.rstrip() for line in output.splitlines()]
    start = next((n for n, line in enumerate(lines) if first in line), 0)
    rest = lines[start + 1 :]
    end = next((n for n, line in enumerate(rest) if last and last in line), len(rest))
    return "\n".join([lines[start], *rest[:end]]).strip("\n")


def filled(page: str, answer: Callable[[list[str]], str]) -> str:
    """The page with what its commands print; `answer` runs the commands of a block."""
    output = ""

    def fill(match: re.Match[str]) -> str:
        nonlocal output
        if match["commands"] is None:
            text = cut(output, match["marks"])
            return f"<!-- output{match['marks']} -->\n```text\n{text}\n```\n"
        output = answer(commands(match["commands"]))
        return match[0]

    return PIECE.sub(fill, page)


def main() -> None:
    """Run the commands in the order of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="empty folder to work in")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipes").symlink_to(ROOT / "recipes")
    page = PAGE.read_text(encoding="utf-8")

    def answer(lines: list[str]) -> str:
        # The first block installs e2urec; whoever runs this has done so.
        return "" if any("pip install" in line for line in lines) else run(lines, folder)

    PAGE.write_text(filled(page, answer), encoding="utf-8")


if __name__ == "__main__":
    main()
