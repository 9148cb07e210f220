"""Everything flows one way: a room imports only from rooms above it, and has no circles inside."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "e2urec"
ROOMS = (
    "core",
    "metrics",
    "data",
    "models",
    "training",
    "unlearning",
    "methods",
    "evaluation",
    "runs",
    "report",
    "experiments",
    "api",
    "testing",
    "cli",
    "__main__",
)
"""From the top of the house to its door; the package itself, which only names things, is below."""
FILES = sorted(ROOT.rglob("*.py"))
LONGEST = 350


def module_name(path: Path) -> str:
    """`data.splits`; a package goes by its folder, the whole by the empty text."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in FILES}


def room(module: str) -> str:
    return module.split(".")[0]


def imports(path: Path) -> set[str]:
    """Modules of the package that `path` imports, wherever in the file it does so."""
    package = list(path.relative_to(ROOT).parent.parts)
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        target = ".".join([*base, *(node.module or "").split(".")]).strip(".")
        for alias in node.names:
            inner = f"{target}.{alias.name}".strip(".")
            modules.add(inner if inner in MODULES else target)
    return modules


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_file_imports_only_from_its_own_room_and_those_above(module: str) -> None:
    assert room(module) in ROOMS, f"{module}: stands in no room of the house"
    place = ROOMS.index(room(module))
    below = {name for name in imports(MODULES[module]) if ROOMS.index(room(name)) > place}
    assert not below


def test_files_of_a_room_do_not_import_each_other_in_a_circle() -> None:
    graph = {
        name: {other for other in imports(path) if room(other) == room(name)}
        for name, path in MODULES.items()
    }
    for name in graph:
        graph[name].discard(name)
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path) or "e2urec")
def test_module_is_short_enough_to_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_public_names_are_sorted_complete_and_there() -> None:
    import e2urec

    assert e2urec.__all__ == sorted(e2urec.__all__)
    assert all(hasattr(e2urec, name) for name in e2urec.__all__)
    stub = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    imported = {
        alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == set(e2urec.__all__)
    assert not imported & set(MODULES), (
        "a public name that is a module's too would be one or the other by chance"
    )


def test_command_line_starts_without_loading_a_model_library() -> None:
    heavy = "print(sorted({'torch', 'transformers', 'polars', 'scipy'} & set(sys.modules)))"
    code = f"import sys, e2urec.cli; {heavy}"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_no_line_is_kept_from_the_formatter(folder: str) -> None:
    # The words are put together here, so that this file does not hold the marks itself.
    marks = [f"# fmt: {word}" for word in ("skip", "off")]
    files = sorted((ROOT.parents[1] / folder).rglob("*.py"))
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not any(mark in text for mark in marks), path.name
