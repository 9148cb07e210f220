"""How a row becomes the prompt that somebody's recommender was tuned on."""

import re
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

# What CoLLM's program, and BinLLM's, which is made of it, put in place of names in their prompts.
TITLES = "ItemTitleList"
TITLE = "TargetItemTitle"
CODES = ("UserID", "TargetItemID")
EMBEDDINGS = ("ItemIDList", "DCNFeature")
NAMES = re.compile(f"<({'|'.join([TITLES, TITLE, *CODES, *EMBEDDINGS])})>")
ID_NAMES = re.compile(f"<({'|'.join([*CODES, *EMBEDDINGS])})>")
LONGEST_HISTORY = 10
"""Titles that CoLLM's program shows at most."""
NO_TITLES = "unkow"
"""What it writes where there are none."""
# Its file spells a line's end as two letters, which its program leaves as they are.
COLLM = (
    "#Question: A user has given high ratings to the following {kind}s: <ItemTitleList>. Leverage "
    "the information to predict whether the user would enjoy the {kind} titled <TargetItemTitle>? "
    'Answer with "Yes" or "No". \\n#Answer:'
)
PROMPT_FILE = ".txt"
"""Suffix of a file of prompts as CoLLM and BinLLM have them."""


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


def e2urec(row: Mapping[str, object]) -> str:
    """The whole prompt is the input (justarter/E2URec, data_preprocess/data2json.py)."""
    return _text(row, "input")


def with_names(text: str) -> Fill:
    """A prompt with names in angle brackets, as CoLLM fills them (zyang1580/CoLLM, prompts/)."""

    def fill(row: Mapping[str, object]) -> str:
        return NAMES.sub(lambda match: _named(row, match[1]), text)

    return fill


def _named(row: Mapping[str, object], name: str) -> str:
    """What stands in a prompt in place of a name; raises ValueError as `Fill` does."""
    if name == TITLES:
        return _title_list(row)
    if name == TITLE:
        title = _text(row, TITLE).strip(" ")
        return f'"{title}"'
    code = row.get(name)
    # BinLLM writes binary codes as text. An ID itself is a number that no prompt shows.
    if name in EMBEDDINGS or not isinstance(code, str) or not code:
        raise ValueError(_embedding_fault(name))
    return code


def _title_list(row: Mapping[str, object]) -> str:
    titles = row.get(TITLES)
    if not isinstance(titles, list) or not all(isinstance(title, str) for title in titles):
        raise ValueError(f"holds no list of titles '{TITLES}'; add it, oldest first")
    parts = [f'"{title}"' for title in titles[-LONGEST_HISTORY:] if title]
    return ", ".join(parts) or NO_TITLES


def require_text_alone(prompt: str) -> None:
    """Raise ValueError for a prompt in which a name stands for an embedding."""
    match = ID_NAMES.search(prompt)
    if match is not None:
        raise ValueError(_embedding_fault(match[1]))


def _embedding_fault(name: str) -> str:
    return (
        f"holds no text for <{name}>, in whose place CoLLM's projector puts an embedding, which no "
        "language model reads by itself; give rows of its text stage, or the code as text that "
        "BinLLM shows"
    )


FORMATS: dict[str, Fill] = {
    "alpaca": alpaca,
    "tallrec": tallrec,
    "collm-movies": with_names(COLLM.format(kind="movie")),
    "collm-books": with_names(COLLM.format(kind="book")),
    "e2urec": e2urec,
}


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
    if path.suffix not in (*SUFFIXES, PROMPT_FILE):
        hint = did_you_mean(name, list(FORMATS))
        raise DataError(f"data.options.format '{name}': unknown{hint}, or a file with .j2 or .txt")
    try:
        source = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(
            f"data.options.format '{name}': cannot be read as UTF-8 text; name another file"
        ) from error
    if path.suffix == PROMPT_FILE:
        return with_names(_only_prompt(path.name, source))
    return _template(path.name, source)


def _only_prompt(name: str, source: str) -> str:
    """The prompt of a file that may repeat it line by line, as those of CoLLM do."""
    prompts = {line for line in source.splitlines() if line.strip()}
    if len(prompts) != 1:
        raise DataError(
            f"data.options.format '{name}': holds {len(prompts)} different prompts, of which one "
            "was drawn for each row; write each row's own as 'prompt', and leave out the format"
        )
    return prompts.pop()


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
