"""Measure the style of Python code: one Markdown table, with a column for each folder.

    python benchmarks/style.py src/e2urec [OTHER …]

Every folder is measured by the same code, so that projects can be compared. Only the standard
library is needed. The row of complexity needs radon, and is left out where radon is not installed.
"""

import argparse
import ast
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

# The project's own line length; see pyproject.toml.
LINE_LENGTH = 100
# From here on, what travels together should be an object; ruff refuses more than that.
MANY_PARAMETERS = 6
# What McCabe proposed, and ruff's C901 allows.
MAX_COMPLEXITY = 10
FILLER_TEXT = """
asked chosen drawn each found given kept known left made mine moved named others ours shown some
such taken theirs told wanted
"""
FILLERS = frozenset(FILLER_TEXT.split())
"""Words that, as a whole name, do not say what a thing is."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a folder.

    Attributes:
        name: its path inside the folder.
        lines: its text.
        tree: its syntax.
    """

    name: str
    lines: list[str]
    tree: ast.Module

    @classmethod
    def read(cls, path: Path, folder: Path) -> "SourceFile":
        """Read and parse a file; raises SyntaxError if it is no Python of this version."""
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(folder))
        return cls(name, text.splitlines(), ast.parse(text, filename=str(path)))

    @property
    def functions(self) -> Iterator[FunctionNode]:
        """All functions and methods, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, FunctionNode):
                yield node


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
        function_lines: code lines of each function, without its docstring, in ascending order.
        many_parameters: functions with six parameters or more.
        body_nodes: syntax nodes in all function bodies.
        body_lines: code lines in all function bodies.
        fillers: bindings that are named by a bare participle or filler.
        complexities: of each function; None without radon.
    """

    files: int
    longest_name: str
    longest_lines: int
    lines: int
    long_lines: int
    comment_lines: int
    function_lines: list[int]
    many_parameters: int
    body_nodes: int
    body_lines: int
    fillers: int
    complexities: list[int] | None


# --- measuring


def measure(folder: Path) -> Style:
    """Count everything in the Python files of a folder.

    Raises:
        SystemExit: there are none.
    """
    files = [SourceFile.read(path, folder) for path in sorted(folder.rglob("*.py"))]
    if not files:
        raise SystemExit(f"'{folder}': holds no Python files; name a folder of source code")
    longest = max(files, key=lambda file: len(file.lines))
    lines = [line for file in files for line in file.lines]
    function_lines = []
    parameters = []
    body_nodes = 0
    body_lines = 0
    for file in files:
        for function in file.functions:
            body_size = count_body_lines(function, file.lines)
            function_lines.append(count_head_lines(function, file.lines) + body_size)
            parameters.append(count_parameters(function))
            body_lines += body_size
            body_nodes += count_nodes(function)
    return Style(
        files=len(files),
        longest_name=longest.name,
        longest_lines=len(longest.lines),
        lines=len(lines),
        long_lines=sum(len(line) > LINE_LENGTH for line in lines),
        comment_lines=sum(is_comment(line) for line in lines),
        function_lines=sorted(function_lines),
        many_parameters=sum(count >= MANY_PARAMETERS for count in parameters),
        body_nodes=body_nodes,
        body_lines=body_lines,
        fillers=sum(count_fillers(file.tree) for file in files),
        complexities=complexities(files),
    )


def is_comment(line: str) -> bool:
    """Whether a line holds a comment and nothing else."""
    return line.lstrip().startswith("#")


def is_code(line: str) -> bool:
    """Whether a line is neither empty nor a comment."""
    return bool(line.strip()) and not is_comment(line)


def body_of(function: FunctionNode) -> list[ast.stmt]:
    """The statements of a function without its docstring."""
    if ast.get_docstring(function, clean=False) is None:
        return function.body
    return function.body[1:]


def count_head_lines(function: FunctionNode, lines: Sequence[str]) -> int:
    """Lines of the signature that hold something, decorators not among them."""
    # A body of one line may stand on the line of the signature, which then counts as the body's.
    head = lines[function.lineno - 1 : function.body[0].lineno - 1]
    return sum(bool(line.strip()) for line in head)


def count_body_lines(function: FunctionNode, lines: Sequence[str]) -> int:
    """Code lines of a body; docstring, comments and empty lines do not count."""
    statements = body_of(function)
    if not statements:
        return 0
    first_line = statements[0].lineno
    return sum(is_code(line) for line in lines[first_line - 1 : statements[-1].end_lineno])


def count_nodes(function: FunctionNode) -> int:
    """Syntax nodes of a body, as `ast.walk` finds them."""
    return sum(1 for statement in body_of(function) for _ in ast.walk(statement))


def count_parameters(function: FunctionNode) -> int:
    """Parameters of all kinds without `self` and `cls`."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    count = len(positional) + len(arguments.kwonlyargs)
    count += sum(argument is not None for argument in (arguments.vararg, arguments.kwarg))
    if positional and positional[0].arg in ("self", "cls"):
        count -= 1
    return count


def count_fillers(tree: ast.AST) -> int:
    """Bindings that are named by a filler alone; a leading underscore changes nothing."""
    return sum(name.lstrip("_") in FILLERS for name in bindings(tree))


def bindings(tree: ast.AST) -> Iterator[str]:
    """The name of every binding: of variables, parameters and fields, once for each binding.

    Names of functions, classes and imported modules are not among them.
    """
    for node in ast.walk(tree):
        match node:
            # A field of a dataclass is a name of its class body; `self.name = …` an attribute.
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name


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


def function_sizes(style: Style) -> str:
    """Median, and the sizes that a tenth and a hundredth of the functions exceed."""
    if not style.function_lines:
        return "–"
    sizes = [percentile(style.function_lines, share) for share in (0.5, 0.9, 0.99)]
    return " / ".join(map(str, sizes))


def percentage(count: int, total: int) -> str:
    """A count as a percentage of a total."""
    if not total:
        return "–"
    return f"{count / total:.1%}"


def density(style: Style) -> str:
    """Syntax nodes of a body line, the mean of all bodies."""
    if not style.body_lines:
        return "–"
    return f"{style.body_nodes / style.body_lines:.2f}"


def complex_share(style: Style) -> str:
    """The share of functions that are too complex."""
    if style.complexities is None:
        return "–"
    above = sum(complexity > MAX_COMPLEXITY for complexity in style.complexities)
    return percentage(above, len(style.complexities))


ROWS: dict[str, Callable[[Style], str]] = {
    "files": lambda style: f"{style.files}",
    "lines": lambda style: f"{style.lines:,}",
    "functions": lambda style: f"{len(style.function_lines):,}",
    "code lines a function without docstring, p50 / p90 / p99": function_sizes,
    "functions with 6 parameters or more": lambda style: percentage(
        style.many_parameters, len(style.function_lines)
    ),
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
    if all(style.complexities is None for style in styles.values()):
        del rows["complexity over 10"]
    lines = [markdown_row(["", *styles]), markdown_row(["---"] * (1 + len(styles)))]
    for title, cell in rows.items():
        cells = [cell(style) for style in styles.values()]
        lines.append(markdown_row([title, *cells]))
    return "\n".join(lines)


def markdown_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


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
