from pathlib import Path

from e2urec.report.method_table import method_table

DOCS = Path(__file__).parents[2] / "docs"


def test_page_of_methods_is_what_the_methods_say():
    assert (DOCS / "methods.md").read_text(encoding="utf-8") == method_table()
