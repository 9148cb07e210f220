"""Imports flow one way: a file imports only from files above its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "e2urec"
METHOD = "a method"
"""The layer of all methods: each is a file of its own, and none imports another."""
LAYERS = [
    "errors", "seeding", "memory", "metrics", "intervals", "data.interactions",
    "data.sources.files", "data.sources.reading", "data.sources.movielens", "data.sources.goodreads",
    "data.sources.database", "data.sources.tabular", "data.sources", "data.rows", "data.erased", "data.splits",
    "data.ledger", "data.overview", "data.requests", "data.prompts",
    "data.templating", "data", "models.backbone", "models.answers", "losses",
    "models.batches", "models.tokens", "models.blocks", "models.adapters", "models.recommender", "models.trunk",
    "models.ensemble", "models", "training", "predictions", "teachers", "tuning", "task",
    "methods.speed", "methods.student", "methods.paired", "methods.sharded", METHOD,
    "methods", "evaluation.verdict", "evaluation.membership", "evaluation.relearning", "evaluation.slices",
    "results", "evaluation.evaluate", "evaluation.kept", "evaluation", "runs", "fetch", "recipe", "pipeline",
    "actions", "report.names", "report.method_table", "report.plots", "report.page", "report.comparison", "demo",
    "grid", "comparison", "report.terminal", "report", "cli", "",
]  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer(name: str) -> str:
    """Where a module stands: a file of `methods/` that is not listed is a method."""
    return METHOD if name.startswith("methods.") and name not in LAYERS else name


def imports(path: Path) -> set[str]:
    """Modules of the package that `path` imports, wherever in the file it does so."""
    package = [*module_name(path).split("."), ""] if path.name == "__init__.py" else module_name(path).split(".")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [part for part in package[: len(package) - node.level] if part]
            target = [*base, *(node.module or "").split(".")]
            name = ".".join(part for part in target if part)
            inner = [f"{name}.{alias.name}".strip(".") for alias in node.names]
            found |= {module for module in inner if module in LAYERS} or {name}
    return found


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path) or "e2urec")
def test_file_imports_only_from_layers_above(path: Path) -> None:
    name = module_name(path)
    assert layer(name) in LAYERS, f"{name} has no place in the layers yet"
    below = {other for other in imports(path) if LAYERS.index(layer(other)) >= LAYERS.index(layer(name))}
    assert not below


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path) or "e2urec")
def test_module_is_short_enough_to_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_public_names_are_sorted_complete_and_there() -> None:
    import e2urec

    assert e2urec.__all__ == sorted(e2urec.__all__)
    assert all(hasattr(e2urec, name) for name in e2urec.__all__)
    stub = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    imported = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(e2urec.__all__)
    assert not imported & set(LAYERS), "a public name that is a module's too would be one or the other by chance"


def test_command_line_starts_without_loading_a_model_library() -> None:
    heavy = "print(sorted({'torch', 'transformers', 'polars', 'scipy'} & set(sys.modules)))"
    code = f"import sys, e2urec.cli; {heavy}"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
