"""The plain script that the page of a whole walk starts from."""

import ast

from docs_scripts import DOCS, script
from e2urec.data.sources.prompt_formats import tallrec

FILE = DOCS / "tallrec.py"
HISTORY = [("1", "Heat", True), ("2", "Alien", False), ("3", "Big", True), ("4", "Up", True)]


def test_script_of_the_walk_imports_nothing_of_e2urec():
    modules = set()
    for node in ast.walk(ast.parse(FILE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            modules.add(str(node.module))
        elif isinstance(node, ast.Import):
            modules.update(name.name for name in node.names)
    assert "peft" in modules
    assert not any(name.startswith("e2urec") for name in modules)


def test_script_of_the_walk_asks_as_tallrec_does_and_shows_no_later_row():
    module = script("tallrec")
    history = [*HISTORY, ("5", "Jaws", False), ("6", "Fargo", True)]
    first, second = module._rows("7", history, 2)
    assert module.PROMPT.format(**first) == tallrec(first)
    assert first["input"] == (
        'User Preference: "Heat", "Big", "Up"\nUser Unpreference: "Alien"\n'
        'Whether the user will like the target movie "Jaws"?'
    )
    assert (first["item"], first["output"]) == ("5", "No.")
    assert "Fargo" not in second["input"].split("target movie")[0]
