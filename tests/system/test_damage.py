"""A run that is not as it was made is refused by every command; `make torture` tries them all."""

import json
import shutil
import sys
import time

import pytest

from damage import DAMAGES, QUICK, Toys, call, damaged, unreadable
from key_files import write_key


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    toys = Toys(tmp_path_factory.mktemp("toys"))
    toys.train("lora", "tuning.lora.rank=4")
    return toys


def work(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize(("delay", "is_soon"), [(time.sleep, True), (work, False)])
def test_damage_that_others_at_work_delay_is_told_soon(monkeypatch, delay, is_soon):
    def refuse() -> None:
        delay(0.4)
        print("e2urec: 'run': is damaged; restore it", file=sys.stderr)
        raise SystemExit(2)

    monkeypatch.setattr("damage.SECONDS", 0.2)
    monkeypatch.setattr("damage.cli.main", refuse)
    assert call(None, "show").refused is is_soon
    # Nobody may wait for ever all the same.
    monkeypatch.setattr("damage.WAITED_SECONDS", 0.2)
    assert not call(None, "show").refused


def commands_on(toys: Toys) -> list[tuple[object, ...]]:
    run = toys.root / "lora"
    return [
        ("show", run),
        ("score", run, "--examples", toys.examples),
        ("unlearn", run, "--forget-ratio", 0.1, *QUICK, "--dry-run"),
        ("prepare", run, "--dry-run"),
        ("rehearse", run, "--times", 2, *QUICK),
        ("evaluate", run, "--forget-ratio", 0.1),
    ]


@pytest.mark.parametrize("file", ["run.json", "adapter/adapter_model.safetensors", "rows.npz"])
def test_damage_is_told_in_one_line_by_every_command(toys, file):
    run = toys.root / "lora"
    for way, damage in DAMAGES.items():
        with damaged(run, file, damage, toys.root / "none"):
            for words in commands_on(toys):
                answer = call(toys.key, *words)
                assert answer.refused, (way, words[0], answer)
    with unreadable(run / file):
        answer = call(toys.key, "show", run)
        assert answer.refused
        assert "Permission denied" in answer.error


def test_base_of_other_weights_is_refused_with_a_remedy(toys):
    base = toys.root / "base"
    words = ("score", toys.root / "lora", "--examples", toys.examples)
    assert call(toys.key, *words).status == 0
    with damaged(base, "model.safetensors", DAMAGES["one bit flipped"], toys.root):
        answer = call(toys.key, *words)
        assert answer.refused
        assert "model.safetensors is not what the run was made from; put the base" in answer.error
    assert call(toys.key, *words).status == 0


def test_record_that_was_changed_is_refused_with_the_key_and_told_of_without(toys, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(toys.root / "lora", run)
    assert "as it was written under this controller key" in call(toys.key, "show", run).output
    write_key(tmp_path / "key")
    assert "under another controller key" in call(tmp_path / "key", "show", run).output
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"seed": 99}))
    for words in (("show", run), ("score", run, "--examples", toys.examples)):
        answer = call(toys.key, *words)
        assert answer.refused
        assert "was changed since it was written under this controller key" in answer.error
    del record["mac"]
    (run / "run.json").write_text(json.dumps(record))
    shown = " ".join(call(toys.key, "show", run).output.split())
    assert "anyone who can write the folder could have changed this record" in shown
    assert json.loads(call(toys.key, "show", run, "--json").output)["mac"] == "none"


REQUEST = ("--forget-ratio", "0.1", "--method", "neggrad", "--set", "min_steps=1")


@pytest.mark.parametrize(
    ("command", "words"),
    [("prepare", ("--set", "scores.pairs=1")), ("unlearn", REQUEST)],
)
def test_what_is_made_from_a_run_gets_no_mac_that_the_run_had_not(toys, tmp_path, command, words):
    run = tmp_path / "run"
    shutil.copytree(toys.root / "lora", run)
    record = json.loads((run / "run.json").read_text())
    del record["mac"]
    (run / "run.json").write_text(json.dumps(record))
    for source, has_mac in ((run, False), (toys.root / "lora", True)):
        out = tmp_path / f"out-{has_mac}"
        answer = call(toys.key, command, source, *words, "--out", out)
        assert answer.status == 0, answer.error
        assert ("mac" in json.loads((out / "run.json").read_text())) is has_mac
