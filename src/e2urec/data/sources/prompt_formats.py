"""How a row becomes the prompt that somebody's recommender was tuned on."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ...core.errors import DataError, did_you_mean
from ..sandbox import Fields, Sandbox, check_nodes
from ..templating import SUFFIXES, template_errors

Fill = Callable[[Mapping[str, object]], str]
"""Makes the prompt of a row's fields; raises ValueError with what the row lacks."""

TASK = "Below is an instruction that describes a task"
INPUT = ", paired with an input that provides further context"
ORDER = ". Write a response that appropriately completes the request."
# TALLRec's script is formatted with a mark for its linter inside of the text, which its models
# were tuned on as well.
MARK = "  # noqa: E501"


def as_written(row: Mapping[str, object]) -> str:
    """The row's `prompt`."""
    if "prompt" not in row and "instruction" in row:
        raise ValueError(
            "holds an instruction and no prompt; say how they become one: format tallrec, alpaca, "
            "or a file with .j2"
        )
    return _text(row, "prompt")


def alpaca(row: Mapping[str, object]) -> str:
    """Instruction and input as Alpaca-LoRA has them (tloen/alpaca-lora, templates/alpaca.json)."""
    return _instruction(row, "")


def tallrec(row: Mapping[str, object]) -> str:
    """The same as TALLRec has them (SAI990323/TALLRec, finetune_rec.py)."""
    return _instruction(row, MARK)


FORMATS: dict[str, Fill] = {"alpaca": alpaca, "tallrec": tallrec}


def find_format(name: str | None) -> Fill:
    """A format by its name or its file; None: rows hold their prompts as they are.

    Raises:
        DataError: there is none, or the file is no template.
    """
    if name is None:
        return as_written
    if name in FORMATS:
        return FORMATS[name]
    path = Path(name)
    if path.suffix not in SUFFIXES:
        hint = did_you_mean(name, list(FORMATS))
        raise DataError(f"data.options.format '{name}': unknown{hint}, or a file with .j2")
    try:
        source = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(
            f"data.options.format '{name}': cannot be read as UTF-8 text; name another file"
        ) from error
    return _template(path.name, source)


def _template(name: str, source: str) -> Fill:
    """The format of a file, in the part of Jinja2 that `sandbox` allows."""
    with template_errors(name):
        sandbox = Sandbox()
        check_nodes(sandbox.parse(source))
        render = sandbox.from_string(source).render

    def fill(row: Mapping[str, object]) -> str:
        fields = Fields({key: value for key, value in row.items() if value is not None})
        with template_errors(name):
            return render(fields)

    return fill


def _instruction(row: Mapping[str, object], mark: str) -> str:
    instruction = _text(row, "instruction")
    context = _text(row, "input") if row.get("input") else ""
    if not context:
        return f"{TASK}{ORDER}{mark}\n\n### Instruction:\n{instruction}\n\n### Response:\n"
    return (
        f"{TASK}{INPUT}{ORDER}{mark}\n\n### Instruction:\n{instruction}\n\n"
        f"### Input:\n{context}\n\n### Response:\n"
    )


def _text(row: Mapping[str, object], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"holds no text '{name}'; add it, or remove the line")
    return value
