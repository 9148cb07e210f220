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
from e2urec.data.sources.prompt_rows import as_setting, forms_of
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
    assert rows_of(path, answers=["1", "0"]).prompts.answers == (("1",), ("0",))
    with pytest.raises(DataError, match="1 outputs of the rows are neither"):
        rows_of(path, answers=["1", "2"])


def test_upper_grades_of_a_scale_are_liked(tmp_path: Path) -> None:
    lines = [LINE | {"item": grade, "output": grade} for grade in "12345"]
    path = write(tmp_path, *lines)
    for answers in (["4|5", "1|2|3"], [["4", "5"], ["1", "2", "3"]]):
        data = rows_of(path, answers=answers)
        assert dict(zip(data.item_ids, data.liked[np.argsort(data.item)], strict=True)) == {
            "1": 0,
            "2": 0,
            "3": 0,
            "4": 1,
            "5": 1,
        }
        assert data.prompts.answers == (("4", "5"), ("1", "2", "3"))


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["4|5", "1|2"], "1 outputs of the rows are neither"),
        (["4|5", "1|2|3|5"], "a form means liked and not liked"),
        (["4|5|", "1|2|3"], "holds an empty form"),
        ([["4", "5"], []], "answers"),
    ],
)
def test_answers_that_are_no_two_sets_of_outputs_are_refused(tmp_path: Path, answers, reason):
    path = write(tmp_path, *[LINE | {"item": grade, "output": grade} for grade in "12345"])
    with pytest.raises(DataError, match=reason):
        rows_of(path, answers=answers)


def test_form_with_a_bar_in_it_is_given_in_a_list(tmp_path: Path) -> None:
    path = write(tmp_path, LINE | {"output": "a|b"}, LINE | {"item": "up", "output": "c"})
    forms = rows_of(path, answers=[["a|b"], "c"]).prompts.answers
    assert forms == (("a|b",), ("c",))
    assert [forms_of(as_setting(each)) for each in forms] == [*forms]


def test_yes_and_no_in_several_forms_are_seen_without_being_named(tmp_path: Path) -> None:
    outputs = ["Yes.", " yes", "No", " No."]
    path = write(tmp_path, *[LINE | {"item": text, "output": text} for text in outputs])
    assert rows_of(path).prompts.answers == ((" yes", "Yes."), (" No.", "No"))
    # Other words that begin so may mean anything.
    path = write(tmp_path, *[LINE | {"item": text, "output": text} for text in [*outputs, "None"]])
    with pytest.raises(DataError, match="hold 5 different outputs"):
        rows_of(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("indent", [None, 4])
def test_one_array_of_rows_is_read_like_lines_and_so_is_utf_16(
    tmp_path: Path, encoding: str, indent: int | None
) -> None:
    lines = [LINE, LINE | {"item": "up", "output": "No.", "prompt": "Até?\n"}]
    array = tmp_path / "rows.json"
    array.write_text(json.dumps(lines, indent=indent), encoding=encoding)
    plain = write(tmp_path, *lines)
    plain.write_text(plain.read_text(), encoding=encoding)
    for path in (array, plain):
        data = rows_of(path)
        assert sorted(data.prompts.texts) == ["Até?\n", "Heat?\n"]
    array.write_text(json.dumps([*lines, LINE | {"user": None}]), encoding=encoding)
    with pytest.raises(DataError, match=r"rows\.json row 3: holds no user"):
        rows_of(array)
    # A line in an array is a text, and no row.
    array.write_text(json.dumps([LINE, json.dumps(LINE)]), encoding=encoding)
    with pytest.raises(DataError, match=r"rows\.json row 2: is no JSON object"):
        rows_of(array)


def test_utf_16_without_its_mark_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, LINE, LINE | {"output": "No."})
    path.write_bytes(path.read_text().encode("utf-16-le"))
    with pytest.raises(DataError, match="holds NUL bytes, so it is no UTF-8 text; save it as"):
        rows_of(path)


def test_array_that_breaks_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([LINE, LINE])[:-1], encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.json: is no whole JSON array; correct it, or give"):
        rows_of(path)


def test_collm_formats_make_the_prompts_of_its_text_stage(tmp_path: Path) -> None:
    titles = ["", *[f"Film {number}" for number in range(11)]]
    row = {"user": 1, "ItemTitleList": titles, "TargetItemTitle": " Heat ", "output": " Yes"}
    path = write(tmp_path, row, row | {"user": 2, "ItemTitleList": [], "output": " No"})
    shown, without_titles = rows_of(path, format="collm-movies").prompts.texts
    quoted = ", ".join(f'"Film {number}"' for number in range(1, 11))
    assert shown == (
        f"#Question: A user has given high ratings to the following movies: {quoted}. Leverage the "
        'information to predict whether the user would enjoy the movie titled "Heat"? Answer with '
        '"Yes" or "No". \\n#Answer:'
    )
    assert "following movies: unkow. Leverage" in without_titles
    books = rows_of(path, format="collm-books").prompts.texts[0]
    assert books == shown.replace("movie", "book")


def test_prompt_file_of_binllm_shows_codes_as_text_and_no_ids(tmp_path: Path) -> None:
    file = tmp_path / "hash.txt"
    file.write_text("Of <UserID>: <TargetItemTitle>, <TargetItemID>?\n" * 2, encoding="utf-8")
    row = {"user": 1, "TargetItemTitle": "Heat", "UserID": "0101", "TargetItemID": "1.2.3.4"}
    lines = [row | {"output": "Yes"}, row | {"user": 2, "output": "No"}]
    path = write(tmp_path, *lines)
    assert rows_of(path, format=str(file)).prompts.texts[0] == 'Of 0101: "Heat", 1.2.3.4?'
    path = write(tmp_path, lines[0], lines[1] | {"UserID": 7})
    with pytest.raises(DataError, match="line 2: holds no text for <UserID>, in whose place"):
        rows_of(path, format=str(file))
    file.write_text("<TargetItemTitle>?\nLike <TargetItemTitle>?\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds 2 different prompts"):
        rows_of(path, format=str(file))


def test_prompt_with_a_place_for_an_embedding_is_refused_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, LINE, LINE | {"prompt": "<ItemIDList> <TargetItemID>?"})
    with pytest.raises(DataError, match=r"line 2: holds no text for <ItemIDList>.*text stage"):
        rows_of(path)


def test_e2urec_format_takes_the_input_for_the_whole_prompt(tmp_path: Path) -> None:
    row = {"user": 1, "input": "The user is a male.\nYou should ONLY tell me yes or no."}
    array = tmp_path / "train_10_simple.json"
    array.write_text(json.dumps([row | {"output": "Yes."}, row | {"user": 2, "output": "No."}]))
    assert rows_of(array, format="e2urec").prompts.texts[0] == row["input"]
    with pytest.raises(DataError, match="row 1: holds no text 'prompt'"):
        rows_of(array)


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
