"""What a folder holds is checked when it is read; what can be made anew is made anew."""

import shutil
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from damage import DAMAGES, files_of
from e2urec.core.arrays import Head
from e2urec.core.contents import check_contents, write_contents
from e2urec.core.errors import ModelError, RunError
from e2urec.data import fetch as fetch_module
from e2urec.data.fetch import Packaged, fetch
from e2urec.evaluation.answers import Answers
from e2urec.evaluation.comparison import CellRecord
from e2urec.evaluation.shadows import ShadowFactory, ShadowRows, Shadows
from e2urec.experiments.grid import FinishedCell, Grid
from e2urec.models import adapter_files, adapters
from e2urec.models.adapters import LoRA
from e2urec.models.predictions import NO_HEAD, Predictions
from e2urec.models.recommender import Recommender
from e2urec.runs.record_mac import MacState, mac_of, mac_state
from e2urec.testing import toy_backbone, toy_recommender, toy_task

KEY = sha256(b"controller").digest()


@pytest.mark.parametrize("way", DAMAGES)
def test_a_folder_is_refused_unless_it_holds_what_it_held(tmp_path, way):
    folder = tmp_path / "folder"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights").write_bytes(bytes(range(256)))
    (folder / "card.json").write_text('{"a": 1}')
    write_contents(folder)
    check_contents(folder)
    DAMAGES[way](folder / "model" / "weights", tmp_path / "none")
    with pytest.raises(RunError) as error:
        check_contents(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_contents_that_another_wrote_are_refused_by_the_holder_of_the_key(tmp_path):
    (tmp_path / "weights").write_bytes(b"1234")
    write_contents(tmp_path, KEY)
    check_contents(tmp_path, KEY)
    (tmp_path / "weights").write_bytes(b"5678")
    for key in (None, sha256(b"another").digest()):
        write_contents(tmp_path, key)
        with pytest.raises(RunError, match="was not written under this controller key"):
            check_contents(tmp_path, KEY)


def answers() -> Answers:
    """Of a model with states and a head, on a few rows."""
    random = np.random.default_rng(0)
    rows = Predictions(
        log_odds=random.normal(size=4).astype(np.float32),
        labels=np.array([0, 1, 0, 1], dtype=np.int8),
        users=np.arange(4),
        hidden=None,
        head=NO_HEAD,
    )
    head = Head(random.normal(size=(5, 3)).astype(np.float32), None, cap=30.0)
    states = random.normal(size=(4, 3)).astype(np.float32)
    forget = replace(rows, hidden=states, head=head)
    return Answers(forget=forget, valid=rows, test=rows, unseen=rows)


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("name", ["cell/answers.safetensors", "cell/cell.json", "head"])
def test_a_damaged_cell_is_made_anew_after_one_sentence(tmp_path, name, way):
    sentences: list[str] = []
    made = []

    def make(folder: Path) -> FinishedCell:
        made.append(folder)
        return FinishedCell(answers(), CellRecord(seconds={"total": 1.0}))

    Grid(tmp_path, 1, sentences.append).cell("cell", make)
    file = next(tmp_path.glob("head-*")) if name == "head" else tmp_path / name
    is_link_or_more = "link" in way or "additional" in way
    DAMAGES[way](file, tmp_path / "none")
    sentences.clear()
    again = Grid(tmp_path, 1, sentences.append).cell("cell", make)
    assert np.array_equal(again.answers.forget.hidden, answers().forget.hidden)
    assert np.array_equal(again.answers.forget.head[0], answers().forget.head[0])
    assert again.answers.forget.head.cap == 30
    assert again.record.seconds == {"total": 1.0}
    # Beside a head other files may lie, and one of the right content is the right one.
    if name == "head" and is_link_or_more:
        return
    assert len(made) == 2
    assert sum("the cell is made anew" in sentence for sentence in sentences) == 1


def test_a_damaged_shadow_is_made_anew_after_one_sentence(tmp_path, shadow_folder):
    task = toy_task("causal")
    sentences: list[str] = []
    factory = ShadowFactory(
        Recommender(task.base, task.original.template),
        task.tuning,
        Shadows(count=2, lora=LoRA(rank=2)),
        seed=3,
        folder=shadow_folder,
        say=sentences.append,
    )
    rows = ShadowRows(task.retain, task.unseen, task.forget)
    whole = factory.scores(rows)
    for way in ("one bit flipped", "missing", "replaced by a folder", "JSON nested deeply"):
        DAMAGES[way](next(tmp_path.rglob("00/adapter_model.safetensors")), tmp_path)
        again = factory.scores(rows)
        assert np.allclose(again.forget, whole.forget, atol=1e-5)
    assert len(sentences) == 4
    assert all("the shadow model is made anew" in sentence for sentence in sentences)


@pytest.mark.parametrize("way", DAMAGES)
def test_a_damaged_folder_of_the_cache_is_fetched_anew(tmp_path, monkeypatch, capsys, way):
    content = bytes(range(200))
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "wheels" / "toy.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy/a.bin", content)
    toy = Packaged(
        requirement="toy==1",
        wheel=wheel.name,
        size=wheel.stat().st_size,
        sha256=sha256(wheel.read_bytes()).hexdigest(),
        files={"toy/a.bin": sha256(content).hexdigest()},
        terms="none",
    )
    monkeypatch.setitem(fetch_module.PACKAGED, "toy", toy)
    folder = fetch("toy", cache=tmp_path)
    assert fetch("toy", cache=tmp_path) == folder
    assert capsys.readouterr().err == ""
    DAMAGES[way](folder / "a.bin", tmp_path / "none")
    fetch("toy", cache=tmp_path)
    assert files_of(folder) == ["a.bin"]
    assert (folder / "a.bin").read_bytes() == content
    assert capsys.readouterr().err.count("it is fetched anew") == 1


def change_weights(file: Path, *, rename: bool) -> None:
    """Rename a weight, so that one is missing and another unused; or add one."""
    tensors = load_file(file)
    name = max(tensors)
    if rename:
        tensors[f"{name}.other"] = tensors.pop(name)
    else:
        tensors["of.nothing"] = tensors[name].clone()
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("rename", [True, False])
def test_model_with_missing_or_unused_weights_is_refused(tmp_path, rename):
    toy_recommender("causal").save(tmp_path)
    change_weights(tmp_path / "model" / "model.safetensors", rename=rename)
    with pytest.raises(ModelError, match=r"(missing|unexpected) weights, such as"):
        Recommender.load(tmp_path)


@pytest.mark.parametrize("rename", [True, False])
def test_adapter_with_missing_or_unused_weights_is_refused(tmp_path, rename):
    lm = adapters.attach(toy_backbone("causal").lm, "original", LoRA(rank=2), seed=0)
    adapter_files.save_adapter(lm, "original", tmp_path)
    change_weights(tmp_path / "adapter_model.safetensors", rename=rename)
    with pytest.raises(ModelError, match="missing or unused weights, such as"):
        adapter_files.load_adapter(toy_backbone("causal").lm, tmp_path, "original")


@pytest.mark.parametrize(
    "card", ["[]", "{}", '{"template": 3, "window": 4, "base": "x"}', "[" * 100_000]
)
def test_card_of_a_recommender_of_another_shape_is_refused_in_one_line(tmp_path, card):
    toy_recommender("causal").save(tmp_path)
    (tmp_path / "recommender.json").write_text(card)
    with pytest.raises(RunError, match="is damaged"):
        Recommender.load(tmp_path)


def test_model_that_cannot_be_read_is_refused_in_one_line(tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        for way in ("truncated", "JSON of wrong types", "JSON nested deeply", "missing"):
            folder = tmp_path / f"{name} {way}"
            toy_recommender("causal").save(folder)
            DAMAGES[way](folder / "model" / name, folder)
            with pytest.raises(ModelError) as error:
                Recommender.load(folder)
            assert "\n" not in str(error.value)
            shutil.rmtree(folder)


def test_mac_says_whether_a_record_was_changed_and_under_which_key():
    values = {"kind": "original", "seed": 3, "seconds": {"a": 0.1}}
    signed = values | {"mac": mac_of(values, KEY).model_dump()}
    assert mac_state(signed, KEY) is MacState.HOLDS
    assert mac_state(signed, None) is MacState.NO_KEY
    assert mac_state(signed, bytes(32)) is MacState.OTHER_KEY
    assert mac_state(values, KEY) is MacState.NONE
    assert mac_state(signed | {"seed": 4}, KEY) is MacState.CHANGED
    for mac in (3, {}, signed["mac"] | {"value": "ä"}, signed["mac"] | {"salt": "x"}):
        assert mac_state(signed | {"mac": mac}, KEY) is MacState.CHANGED
    # Two records of one key do not tell that they are.
    assert mac_of(values, KEY).key != mac_of(values, KEY).key
