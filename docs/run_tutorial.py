"""Run the commands of the tutorial, or of another page, and put what they print into it.

    python docs/run_tutorial.py FOLDER [--page how-to/import-walk.md]

FOLDER is where the run folders go; it must be empty. It gets the recipes, and the script that the
page of imports starts from. A text block of the page that follows the
comment `<!-- output -->` gets what the last command above it prints on standard output. The comment
`<!-- output: Memory | Distance -->` cuts it: from the first line with *Memory* up to the first line
with *Distance*, that line not included; either may be left out.
"""

import argparse
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PIECE = re.compile(
    r"```console\n(?P<commands>.*?)```\n"
    r"|<!-- output(?P<marks>.*?) -->\n```text\n.*?```\n",
    re.S,
)
# The width of the tables: what the page shows on a desktop without scrolling.
COLUMNS = "88"


def commands(block: str) -> list[str]:
    """The lines that a reader types."""
    text = block.replace("\\\n", " ")
    lines = []
    for line in text.splitlines():
        if line.startswith("$ "):
            lines.append(line.removeprefix("$ "))
    return lines


def run(lines: list[str], folder: Path) -> str:
    """What the last of the commands prints on standard output; it ends at one that fails."""
    environment = os.environ | {"COLUMNS": COLUMNS}
    output = ""
    for line in lines:
        print(f"$ {line}", flush=True)
        start = time.monotonic()
        process = subprocess.run(
            ["bash", "-c", line],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        seconds = time.monotonic() - start
        if process.returncode:
            raise SystemExit(f"status {process.returncode}: {line}")
        # For the sentence of the page that says how long all of it takes.
        print(f"  {seconds:.0f} s", flush=True)
        output = process.stdout
    # A page must not show where on this computer the runs were.
    place = str(folder.resolve())
    return output.replace(place, "…")


def cut(output: str, marks: str) -> str:
    """The part of `output` between two marks; see the head of this file."""
    marks = marks.removeprefix(":")
    first, _, last = marks.partition("|")
    lines = [line.rstrip() for line in output.splitlines()]
    # A command may print nothing, and the page shows just that.
    if not lines:
        return ""
    start = _position(lines, first.strip(), missing=0)
    # The line of the first mark may hold the second as well.
    rest = lines[start + 1 :]
    last = last.strip()
    end = _position(rest, last, missing=len(rest)) if last else len(rest)
    part = [lines[start], *rest[:end]]
    return "\n".join(part).strip("\n")


def _position(lines: list[str], mark: str, *, missing: int) -> int:
    """Position of the first line that holds `mark`."""
    for number, line in enumerate(lines):
        if mark in line:
            return number
    return missing


def filled(page: str, answer: Callable[[list[str]], str]) -> str:
    """The page with what its commands print; `answer` runs the commands of a block."""
    output = ""

    def fill(match: re.Match[str]) -> str:
        nonlocal output
        marks = match["marks"]
        # A block of commands stays as it is.
        if marks is None:
            lines = commands(match["commands"])
            output = answer(lines)
            return match[0]
        text = cut(output, marks)
        body = f"{text}\n" if text else ""
        return f"<!-- output{marks} -->\n```text\n{body}```\n"

    return PIECE.sub(fill, page)


def main() -> None:
    """Run the commands in the order of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="empty folder to work in")
    parser.add_argument("--page", default="tutorial.md", help="page in docs")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    for source in (ROOT / "recipes", DOCS / "tallrec.py"):
        (folder / source.name).symlink_to(source)
    page_file = DOCS / arguments.page

    def answer(lines: list[str]) -> str:
        # The first block installs e2urec; whoever runs this has done so.
        if any("pip install" in line for line in lines):
            return ""
        return run(lines, folder)

    page = page_file.read_text(encoding="utf-8")
    text = filled(page, answer)
    page_file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
