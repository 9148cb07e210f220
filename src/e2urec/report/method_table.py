"""The page of all methods and their settings, made from the methods: `python -m e2urec.report.method_table`."""

from ..methods import all_methods
from ..unlearning.method import Method

INTRODUCTION = """\
# Methods

Made by `python -m e2urec.report.method_table > docs/methods.md`; a test holds it to the code. A setting is given as
`--set key=value`, nested ones as `--set lora.rank=8`.
"""


def method_table() -> str:
    """Markdown: a section a method, a row a setting."""
    return "\n".join([INTRODUCTION, *(_section(method) for method in all_methods().values())])


def _section(method: type[Method]) -> str:
    rows = [
        f"| `{name}` | `{_default(field.get_default(call_default_factory=True))}` | {field.description} |"
        for name, field in method.model_fields.items()
    ]
    presets = ", ".join(f"`{name}`" for name in ("default", *method.presets))
    heading = f"## `{method.name}`\n\n{(method.__doc__ or '').strip()}\n\nPresets: {presets}.\n"
    return "\n".join([heading, "| setting | default | meaning |", "|---|---|---|", *rows, ""])


def _default(value: object) -> str:
    return f"({value})" if "=" in str(value) else str(value)


if __name__ == "__main__":
    print(method_table(), end="")
