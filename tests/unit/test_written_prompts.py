"""Rows that bring their own prompts: read, split, found again, and forgotten like any others."""

import json
from pathlib import Path

import numpy as np
import pytest

from e2urec.core.errors import DataError
from e2urec.data.given_split import given_split
from e2urec.data.prompts import TEMPLATES, VERBATIM
from e2urec.data.requests import ErasureRequest, resolve
from e2urec.data.samples import Samples
from e2urec.data.sources import read
from e2urec.data.sources.reading import Reading
from e2urec.data.splits import Split, SplitSettings
from e2urec.runs.row_digests import RowKey
from e2urec.runs.split_index import SplitIndex

LINE = {"user": "ann", "item": "heat", "prompt": "Heat?\n", "output": "Yes."}
TALLREC = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.  # noqa: E501\n\n"
    "### Instruction:\nSay Yes or No.\n\n### Input:\nHeat\n\n### Response:\n"
)


def write(folder: Path, *lines: dict, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def rows_of(path: Path, **options: object):
    return read(Reading(source=str(path), options=options))


def lines_of(users: range, start: int, count: int) -> list[dict]:
    """`count` rows of each user, liked in turn."""
    lines = []
    for user in users:
        for item in range(start, start + count):
            output = "Yes." if (user + item) % 2 else "No."
            prompt = f"User {user} asks for film {item}.\n"
            lines.append({"user": user, "item": item, "prompt": prompt, "output": output})
    return lines


def split_of(tmp_path: Path, held: list[dict]) -> Split:
    source = write(tmp_path, *lines_of(range(6), 0, 4))
    file = write(tmp_path, *held, name="held.jsonl")
    return given_split(rows_of(source, held=str(file)), SplitSettings(), seed=0)


def test_prompt_is_read_letter_by_letter_with_the_space_at_its_end(tmp_path: Path) -> None:
    lines = [LINE | {"prompt": " \nHeat?  "}, LINE | {"user": "bob", "output": "No."}]
    data = rows_of(write(tmp_path, *lines))
    prompts = VERBATIM.render(Samples(data, np.arange(2), 5))
    assert prompts == [" \nHeat?  ", "Heat?\n"]
    assert data.liked.tolist() == [1, 0]


def test_tallrec_format_makes_the_prompts_of_its_script(tmp_path: Path) -> None:
    row = {"user": 1, "instruction": "Say Yes or No.", "input": "Heat", "output": "Yes."}
    path = write(tmp_path, row, row | {"user": 2, "output": "No."})
    assert rows_of(path, format="tallrec").prompts.texts[0] == TALLREC
    plain = TALLREC.replace("  # noqa: E501", "")
    assert rows_of(path, format="alpaca").prompts.texts[0] == plain
    with pytest.raises(DataError, match=r"line 1: holds an instruction and no prompt.*tallrec"):
        rows_of(path)


def test_format_of_a_file_may_show_every_field_of_a_row(tmp_path: Path) -> None:
    form = tmp_path / "form.j2"
    form.write_text("{{ title }} for {{ user }}:\n\n", encoding="utf-8")
    lines = [{"user": 1, "title": "Heat", "prompt": "", "output": word} for word in ("Yes", "No")]
    data = rows_of(write(tmp_path, *lines), format=str(form))
    assert data.prompts.texts.to_list() == ["Heat for 1:\n"] * 2
    form.write_text("{{ titel }}", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: template 'form.j2': 'titel' is undefined"):
        rows_of(write(tmp_path, *lines), format=str(form))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"user": None}, "line 2: holds no user"),
        ({"user": True}, "line 2: holds an id that is neither text nor a whole number"),
        ({"prompt": " "}, "line 2: holds no text 'prompt'"),
        ({"output": ""}, "line 2: holds no text 'output'"),
        ({"part": "dev"}, "line 2: holds an unknown part; write train, valid"),
        ({"time": [1]}, "line 2: holds a time"),
        ({"time": -5}, "row 2: time -5 is negative"),
        ({"output": "Perhaps."}, "3 different outputs.*--answers"),
    ],
)
def test_line_that_is_no_row_is_named_with_a_remedy(tmp_path: Path, change, words) -> None:
    path = write(tmp_path, LINE, LINE | change, LINE | {"output": "No."})
    with pytest.raises(DataError, match=words):
        rows_of(path)


def test_answers_in_words_of_their_own_are_named_liked_first(tmp_path: Path) -> None:
    path = write(tmp_path, LINE | {"output": "1"}, LINE | {"output": "0"})
    assert rows_of(path, answers=["1", "0"]).prompts.answers == ("1", "0")
    with pytest.raises(DataError, match="1 outputs of the rows are neither"):
        rows_of(path, answers=["1", "2"])


def test_rows_that_differ_in_their_prompt_alone_have_hashes_of_their_own(tmp_path: Path) -> None:
    lines = [LINE, LINE | {"prompt": "Heat, again?\n"}, LINE | {"output": "No."}, LINE]
    data = rows_of(write(tmp_path, *lines))
    assert len(data) == 3
    assert data.duplicates == 1
    split = given_split(data, SplitSettings(), seed=0)
    assert len(set(SplitIndex.of(split, RowKey.random()).digests.tolist())) == 3


def test_template_and_data_must_both_or_neither_bring_the_prompts(tmp_path: Path) -> None:
    from e2urec.testing import toy_interactions

    data = rows_of(write(tmp_path, LINE, LINE | {"output": "No."}))
    with pytest.raises(DataError, match=r"set data\.template=verbatim"):
        TEMPLATES["compact"].render(Samples(data, np.arange(1), 5))
    with pytest.raises(DataError, match="the data bring no prompts of their own"):
        VERBATIM.render(Samples(toy_interactions(), np.arange(1), 5))


def test_held_rows_of_known_users_are_tested_on_and_outsiders_stay_whole(tmp_path: Path) -> None:
    parts = split_of(tmp_path, lines_of(range(4, 12), 4, 4))
    sizes = {name: len(part) for name, part in vars(parts).items()}
    # Two known users and six others, of whom a third serves for calibration.
    assert sizes == {"train": 24, "valid": 4, "test": 4, "calibration": 8, "unseen": 16}
    assert not set(parts.unseen.users) & set(parts.calibration.users)
    outsiders = set(parts.unseen.users) | set(parts.calibration.users)
    assert not outsiders & set(parts.train.users)


def test_test_rows_are_of_outsiders_where_no_held_user_was_tuned_on(tmp_path: Path) -> None:
    parts = split_of(tmp_path, lines_of(range(6, 18), 4, 4))
    groups = [set(part.users) for name, part in vars(parts).items() if name != "train"]
    assert [len(group) for group in groups] == [3, 3, 2, 4]
    assert len(set.union(*groups)) == 12


def test_part_for_unknown_users_refuses_a_known_one(tmp_path: Path) -> None:
    lines = [*lines_of(range(2), 0, 2), LINE | {"user": 0, "part": "unseen"}]
    data = rows_of(write(tmp_path, *lines))
    with pytest.raises(DataError, match="1 of part unseen are of users who have training"):
        given_split(data, SplitSettings(), seed=0)


def test_request_takes_the_rows_of_a_user_and_leaves_all_other_prompts_alone(
    tmp_path: Path,
) -> None:
    parts = split_of(tmp_path, lines_of(range(4, 12), 4, 4))
    request = resolve(ErasureRequest(users=("1",), interactions=(("2", "0"),)), parts)
    assert len(request.forget) == 5
    assert all("User 1 " in text or "film 0" in text for text in VERBATIM.render(request.forget))
    assert not len(request.rewritten)
    kept = VERBATIM.render(parts.train.take(~np.isin(parts.train.rows, request.forget.rows)))
    assert VERBATIM.render(request.retain) == kept


def test_parts_are_found_again_after_rows_left_the_file(tmp_path: Path) -> None:
    source = write(tmp_path, *lines_of(range(6), 0, 4))
    data = rows_of(source)
    key = RowKey.random()
    index = SplitIndex.of(given_split(data, SplitSettings(), seed=0), key)
    erased = data.user == 0
    index = index.without(data, erased, key)
    source = write(tmp_path, *lines_of(range(1, 6), 0, 4))
    assert len(index.split(rows_of(source), 5).train) == 20
    changed = [line | {"prompt": line["prompt"].strip()} for line in lines_of(range(1, 6), 0, 4)]
    with pytest.raises(DataError, match="20 rows that the recommender was tuned"):
        index.split(rows_of(write(tmp_path, *changed)), 5)
