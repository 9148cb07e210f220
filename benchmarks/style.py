"""Measure the style of Python code: one Markdown table, with a column for each folder.

    python benchmarks/style.py src/e2urec [OTHER …]

Every folder is measured by the same code, so that projects can be compared. Only the standard
library is needed. The row of complexity needs radon, and is left out where radon is not installed.
"""

import argparse
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from code_size import FunctionSize, SourceFile, count_fillers, function_sizes, is_comment

# The project's own line length; see pyproject.toml.
LINE_LENGTH = 100
# From here on, what travels together should be an object; ruff refuses more than that.
MANY_PARAMETERS = 6
# What McCabe proposed, and ruff's C901 allows.
MAX_COMPLEXITY = 10


@dataclass(frozen=True)
class Style:
    """What was counted in a folder.

    Attributes:
        files: how many files it has.
        longest_name: its longest file.
        longest_lines: lines of that file.
        lines: of all files.
        long_lines: lines of more than 100 columns.
        comment_lines: lines that hold a comment and nothing else.
        functions: all functions and methods.
        fillers: bindings that are named by a bare participle or filler.
        complexities: of each function; None without radon.
    """

    files: int
    longest_name: str
    longest_lines: int
    lines: int
    long_lines: int
    comment_lines: int
    functions: list[FunctionSize]
    fillers: int
    complexities: list[int] | None


# --- measuring


def measure(folder: Path) -> Style:
    """Count everything in the Python files of a folder.

    Raises:
        SystemExit: there are none.
    """
    paths = sorted(folder.rglob("*.py"))
    files = [SourceFile.read(path, folder) for path in paths]
    if not files:
        raise SystemExit(f"'{folder}': holds no Python files; name a folder of source code")
    lines: list[str] = []
    functions: list[FunctionSize] = []
    for file in files:
        lines += file.lines
        functions += function_sizes(file)
    longest = max(files, key=lambda file: len(file.lines))
    return Style(
        files=len(files),
        longest_name=longest.name,
        longest_lines=len(longest.lines),
        lines=len(lines),
        long_lines=sum(len(line) > LINE_LENGTH for line in lines),
        comment_lines=sum(is_comment(line) for line in lines),
        functions=functions,
        fillers=sum(count_fillers(file.tree) for file in files),
        complexities=complexities(files),
    )


def complexities(files: Sequence[SourceFile]) -> list[int] | None:
    """Cyclomatic complexity of each function, as radon counts it; None without radon."""
    if importlib.util.find_spec("radon") is None:
        return None
    visitors = importlib.import_module("radon.visitors")
    counts = []
    for file in files:
        visitor = visitors.ComplexityVisitor.from_ast(file.tree)
        counts += [function.complexity for function in radon_functions(visitor)]
    return counts


def radon_functions(block: Any) -> Iterator[Any]:
    """The functions of a radon visitor, class or function, and those inside of them."""
    # Functions call theirs closures, and classes methods; a visitor has functions and classes.
    for kind in ("functions", "methods", "closures"):
        for function in getattr(block, kind, ()):
            yield function
            yield from radon_functions(function)
    for kind in ("classes", "inner_classes"):
        for class_block in getattr(block, kind, ()):
            yield from radon_functions(class_block)


# --- printing


def percentile(values: Sequence[int], share: float) -> int:
    """The value below which a share of the sorted values lies."""
    place = int(share * len(values))
    return values[min(len(values) - 1, place)]


def line_percentiles(style: Style) -> str:
    """Median, and the code lines that a tenth and a hundredth of the functions exceed."""
    if not style.functions:
        return "–"
    sizes = sorted(function.lines for function in style.functions)
    percentiles = [percentile(sizes, share) for share in (0.5, 0.9, 0.99)]
    return " / ".join(map(str, percentiles))


def percentage(count: int, total: int) -> str:
    """A count as a percentage of a total."""
    if not total:
        return "–"
    return f"{count / total:.1%}"


def density(style: Style) -> str:
    """Syntax nodes of a body line, the mean of all bodies."""
    lines = sum(function.body_lines for function in style.functions)
    nodes = sum(function.body_nodes for function in style.functions)
    if not lines:
        return "–"
    return f"{nodes / lines:.2f}"


def many_parameters(style: Style) -> str:
    """The share of functions with many parameters."""
    count = sum(function.parameters >= MANY_PARAMETERS for function in style.functions)
    return percentage(count, len(style.functions))


def complex_share(style: Style) -> str:
    """The share of functions that are too complex."""
    if style.complexities is None:
        return "–"
    total = len(style.complexities)
    above = sum(complexity > MAX_COMPLEXITY for complexity in style.complexities)
    return percentage(above, total)


ROWS: dict[str, Callable[[Style], str]] = {
    "files": lambda style: f"{style.files}",
    "lines": lambda style: f"{style.lines:,}",
    "functions": lambda style: f"{len(style.functions):,}",
    "code lines a function without docstring, p50 / p90 / p99": line_percentiles,
    "functions with 6 parameters or more": many_parameters,
    "complexity over 10": complex_share,
    "syntax nodes (`ast.walk`) a body line": density,
    "lines over 100 columns": lambda style: percentage(style.long_lines, style.lines),
    "whole-line comments": lambda style: percentage(style.comment_lines, style.lines),
    "longest file": lambda style: f"{style.longest_lines} ({style.longest_name})",
    "bindings named by a bare participle or filler": lambda style: f"{style.fillers}",
}
"""The rows of the table, and the cell of each for one folder."""


def table(styles: dict[str, Style]) -> str:
    """A Markdown table with a column for each folder."""
    rows = dict(ROWS)
    # A row of dashes would only say that a tool is missing.
    if all(style.complexities is None for style in styles.values()):
        del rows["complexity over 10"]
    rules = ["---"] * (1 + len(styles))
    lines = [markdown_row(["", *styles]), markdown_row(rules)]
    for title, cell in rows.items():
        cells = [cell(style) for style in styles.values()]
        lines.append(markdown_row([title, *cells]))
    return "\n".join(lines)


def markdown_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    text = " | ".join(cells)
    return f"| {text} |"


def main() -> None:
    """Read the arguments; measure; print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of source code")
    arguments = parser.parse_args()
    styles = {str(folder): measure(folder) for folder in arguments.folders}
    print(table(styles))


if __name__ == "__main__":
    main()
