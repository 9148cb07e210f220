"""Count the lines, syntax nodes, parameters and names of one file of Python code."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

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


@dataclass(frozen=True)
class FunctionSize:
    """What was counted in a function.

    Attributes:
        head_lines: lines of its signature.
        body_lines: code lines of its body, without docstring.
        body_nodes: syntax nodes of its body.
        parameters: how many it has.
    """

    head_lines: int
    body_lines: int
    body_nodes: int
    parameters: int

    @property
    def lines(self) -> int:
        """Code lines without docstring."""
        return self.head_lines + self.body_lines


def function_sizes(file: SourceFile) -> Iterator[FunctionSize]:
    """The size of every function of a file, nested ones too."""
    for node in ast.walk(file.tree):
        if not isinstance(node, FunctionNode):
            continue
        yield FunctionSize(
            head_lines=count_head_lines(node, file.lines),
            body_lines=count_body_lines(node, file.lines),
            body_nodes=count_nodes(node),
            parameters=count_parameters(node),
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
    first_line = function.body[0].lineno
    head = lines[function.lineno - 1 : first_line - 1]
    return sum(bool(line.strip()) for line in head)


def count_body_lines(function: FunctionNode, lines: Sequence[str]) -> int:
    """Code lines of a body; docstring, comments and empty lines do not count."""
    statements = body_of(function)
    if not statements:
        return 0
    # Python counts lines from 1, and so does the last one, which a slice leaves out.
    first_line = statements[0].lineno
    last_line = statements[-1].end_lineno
    body = lines[first_line - 1 : last_line]
    return sum(is_code(line) for line in body)


def count_nodes(function: FunctionNode) -> int:
    """Syntax nodes of a body, as `ast.walk` finds them."""
    count = 0
    for statement in body_of(function):
        count += len(list(ast.walk(statement)))
    return count


def count_parameters(function: FunctionNode) -> int:
    """Parameters of all kinds without `self` and `cls`."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    count = len(positional) + len(arguments.kwonlyargs)
    if arguments.vararg is not None:
        count += 1
    if arguments.kwarg is not None:
        count += 1
    # Nobody who calls a method passes these.
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
