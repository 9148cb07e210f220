"""A server that speaks vLLM's interface serves a run's adapter, or what it did before."""

import errno
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

import foreign_models as foreign
from e2urec import cli
from e2urec.api.serving.answers_check import CheckRows, check_rows
from e2urec.core import process
from e2urec.core.say import Say
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.runs.erased_rows import ErasedRows
from e2urec.runs.folder import Run, open_run
from e2urec.runs.swaps import swap_sentences
from key_files import KEY, OTHER_KEY
from stand_in_vllm import (
    BASE,
    COMPLETIONS,
    LOAD,
    MODELS,
    RESET,
    UNLOAD,
    Fault,
    StandIn,
    next_values,
)

OLD = "e2urec-old"
ALIAS = "movies"
SECRET = "sk-a-key-of-the-server"
ERASED = ("1", "2")
"""In the prompts of users u1 and u2, who asked to be forgotten."""
HELD_OUT = {"6", "7"}
"""Films in the rows of users of whom other rows were tuned on."""


@dataclass
class Made:
    """An original and what it became, with the exported adapter of each."""

    folder: Path
    forgotten: Path
    old_adapter: Path
    new_adapter: Path
    rows: dict[int, CheckRows] = field(default_factory=dict)

    @cached_property
    def lm(self) -> Any:
        """The base."""
        return AutoModelForCausalLM.from_pretrained(self.folder / "base", dtype=torch.float32)

    @cached_property
    def tokenizer(self) -> Any:
        """That of all models."""
        return AutoTokenizer.from_pretrained(self.folder / "base")

    @cached_property
    def prompts(self) -> list[list[int]]:
        """What clients ask: the first rows of a user who stays."""
        texts = foreign.prompts_of(self.folder / "rows.jsonl")[:1]
        return [self.tokenizer(text).input_ids for text in texts]

    @cached_property
    def liked(self) -> int:
        """The token of the answer."""
        card = json.loads((self.new_adapter / "e2urec.json").read_text(encoding="utf-8"))
        return int(card["answers"]["liked"])

    def check_rows(self, run: Run, count: int, key: Path | None, say: Say) -> CheckRows:
        """What the run's own model says of its rows, read once."""
        if count not in self.rows:
            self.rows[count] = check_rows(run, count, key, say)
        return self.rows[count]

    @property
    def before(self) -> dict[str, str]:
        """What a server serves before a swap."""
        return {ALIAS: str(self.old_adapter), OLD: str(self.old_adapter)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("swap")
    rows, held = foreign.write_rows(folder)
    base = foreign.write_base(folder / "base")
    lm = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    foreign.tune_adapter(lm, AutoTokenizer.from_pretrained(base), rows, folder / "adapter")
    (folder / "form.j2").write_text(foreign.FORM, encoding="utf-8")
    (folder / "users.txt").write_text("u1\nu2\n", encoding="utf-8")
    original = folder / "original"
    forgotten = folder / "forgotten"
    run = ["import", folder / "adapter", "--rows", rows, "--held", held, "--out", original]
    command(*run, "--format", folder / "form.j2", "--set", "tuning.schedule.precision=fp32")
    request = ["--request", folder / "users.txt", "--out", forgotten]
    quick = ["--set", "joint=1", "--set", "warmup=1", "--set", "lora.rank=16"]
    command("unlearn", original, *request, *quick)
    for name in ("original", "forgotten"):
        command("export", folder / name, "--adapter", "--out", folder / f"{name}-adapter")
    adapters = folder / "original-adapter", folder / "forgotten-adapter"
    return Made(folder, forgotten, *adapters)


def command(*words: object) -> None:
    """Run a command that must succeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["e2urec", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code


@pytest.fixture
def server(made: Made) -> Iterator[StandIn]:
    """A server that serves the original's adapter, and was asked for it already."""
    with StandIn(made.folder / "base", made.lm) as server:
        start(server, made)
        yield server


def start(server: StandIn, made: Made) -> None:
    for name, root in made.before.items():
        server.load({"lora_name": name, "lora_path": root})
    for prompt in made.prompts:
        server.complete({"model": ALIAS, "prompt": prompt})


@pytest.fixture
def swap(call, made: Made, server: StandIn, monkeypatch):
    """Run `e2urec swap`; returns (exit status, standard output, standard error)."""
    # Its own model need not be loaded for each test.
    monkeypatch.setattr("e2urec.api.serving.swap_plan.check_rows", made.check_rows)
    # A signal of an earlier test counts as a repeated one for a while.
    monkeypatch.setattr(process, "_interrupts", process._Interrupts())
    # Tests that were started in the background ignore it, and so would the command.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(*words: object) -> tuple[int, str, str]:
        options = ["--vllm", server.url, "--rows", 2, "--tolerance", 0.001]
        return call("swap", made.forgotten, *options, *words)

    return run


@pytest.fixture(autouse=True)
def no_records(made: Made) -> Iterator[None]:
    """Each test finds a run that was never swapped."""
    yield
    shutil.rmtree(made.forgotten / "swaps", ignore_errors=True)


def answers(server: StandIn, name: str, made: Made) -> list[float]:
    """The log-probability that clients are told of the token that follows each of their prompts."""
    values = []
    for prompt in made.prompts:
        question = {"model": name, "prompt": prompt, "allowed_token_ids": [made.liked]}
        _, body = server.complete(question)
        values += body["choices"][0]["logprobs"]["token_logprobs"]
    return values


def answers_alone(folder: Path, made: Made) -> list[float]:
    """The same by PEFT alone."""
    lm = AutoPeftModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    return [next_values(lm, prompt)[made.liked] for prompt in made.prompts]


def test_alias_answers_as_peft_alone_does_and_the_old_adapter_is_gone(swap, server, made) -> None:
    old = answers(server, ALIAS, made)
    status, printed, told = swap("--alias", ALIAS, "--json")
    assert status == 0, told
    record = json.loads(printed)
    name = record["adapter"]
    root = str(made.new_adapter)
    assert server.adapters == {ALIAS: root, name: root}
    new = answers(server, ALIAS, made)
    assert new == pytest.approx(answers_alone(made.new_adapter, made), abs=1e-5)
    assert new == answers(server, name, made)
    assert new != pytest.approx(old, abs=1e-2)
    assert record["old_adapters"] == [OLD]
    assert record["largest_difference"] <= 0.001 < record["old_difference"]
    assert record["prefix_cache"] == "reset"
    assert 0 < record["seconds_without_alias"] < 5
    assert {model["name"]: model["root"] for model in record["after"]} == {
        BASE: str(made.folder / "base"),
        **server.adapters,
    }
    assert "rank 20: vLLM serves it with --max-lora-rank 32" in told


def test_record_of_a_swap_has_a_mac_and_no_prompt_key_or_user(swap, server, made, tmp_path) -> None:
    server.api_key = SECRET
    key = tmp_path / "api key"
    key.write_text(f"{SECRET}\n", encoding="utf-8")
    status, printed, told = swap("--alias", ALIAS, "--api-key-file", key)
    assert status == 0, told
    (file,) = (made.forgotten / "swaps").iterdir()
    text = file.read_text(encoding="utf-8")
    for words in (text, printed, told):
        assert SECRET not in words
        assert "Liked:" not in words
        assert not re.search(r"\bu\d", words)
    run = open_run(made.forgotten, key=KEY)
    (sentence,) = swap_sentences(run, KEY)
    assert "as it was written under this controller key" in sentence
    assert "another controller key" in next(swap_sentences(run, OTHER_KEY))
    file.write_text(text.replace(ALIAS, "others"), encoding="utf-8")
    assert "was changed since" in next(swap_sentences(run, KEY))


def test_server_is_asked_about_no_prompt_of_an_erased_user(call, swap, server, made) -> None:
    words = ["swap", made.forgotten, "--vllm", server.url, "--tolerance", 0.001]
    server.requests.clear()
    assert call(*words, "--alias", ALIAS, "--rows", 10_000)[0] == 0
    prompts = []
    for path, body in server.requests:
        if path == COMPLETIONS:
            assert body["cache_salt"], "nothing may be answered from a cache"
            prompts += body["prompt"]
    users, films = shown_in(prompts, made)
    assert len(users) > 5
    assert not users & set(ERASED)
    assert films <= HELD_OUT


def test_rows_of_a_user_of_whom_a_single_row_was_erased_are_not_asked(made, monkeypatch) -> None:
    run = open_run(made.forgotten)
    data = Workspace(Recipe.build(run.record.recipe, place="run"), record=run.record).data
    code = data.user_ids.to_list().index("u5")
    mask = np.zeros(len(data), dtype=bool)
    mask[np.flatnonzero(data.user == code)[0]] = True
    erased = ErasedRows.under(KEY).with_rows(data, mask)
    monkeypatch.setattr("e2urec.api.serving.users.erased_rows_of", lambda *words: erased)
    users, _ = shown_in(check_rows(run, 10_000, None).prompts, made)
    assert len(users) > 5
    assert "5" not in users


def shown_in(prompts: list[list[int]], made: Made) -> tuple[set[str], set[str]]:
    """The users and the films that prompts name."""
    texts = [made.tokenizer.decode(prompt) for prompt in prompts]
    matches = [re.search(r"Will the user (\d+) like Movie (\d+)", text) for text in texts]
    return {match[1] for match in matches}, {match[2] for match in matches}


def test_first_adapter_under_a_new_alias_replaces_nothing(swap, server, made) -> None:
    status, printed, told = swap("--alias", "fresh", "--json")
    assert status == 0, told
    record = json.loads(printed)
    assert server.adapters["fresh"] == str(made.new_adapter)
    assert record.get("old_adapters") == []
    assert "seconds_without_alias" not in record
    assert "old_difference" not in record


def test_name_of_its_hash_needs_no_reset_of_the_cache_and_the_rest_is_told(swap, server) -> None:
    server.dev_mode = False
    status, printed, told = swap("--replaces", OLD)
    assert status == 0, told
    assert "states that the old adapter computed stay in its memory" in told
    assert "prefix cache: not reset, since the server does not offer it" in printed
    assert OLD not in server.adapters
    assert server.count(RESET) == 0


def test_new_name_first_and_the_old_one_away_later_refuses_no_request(swap, server, made) -> None:
    status, printed, told = swap("--json")
    assert (status, "no adapter goes, and the old one answers on" in told) == (0, True), told
    name = json.loads(printed)["adapter"]
    assert server.adapters == {**made.before, name: str(made.new_adapter)}
    status, _, told = swap("--replaces", OLD)
    assert (status, server.count(LOAD)) == (0, 1), told
    assert server.adapters == {ALIAS: str(made.old_adapter), name: str(made.new_adapter)}


def test_alias_is_not_moved_where_the_cache_cannot_be_reset(swap, server, made) -> None:
    server.dev_mode = False
    status, _, told = swap("--alias", ALIAS)
    assert (status, "VLLM_SERVER_DEV_MODE=1" in told) == (2, True), told
    assert server.count(LOAD) == 0
    server.caching = False
    status, printed, told = swap("--alias", ALIAS)
    assert (status, "prefix cache: the server has none" in printed) == (0, True), told
    assert server.adapters[ALIAS] == str(made.new_adapter)


def test_alias_is_moved_where_the_cache_goes_by_folders(swap, server, made) -> None:
    server.version = "0.32.0"
    server.dev_mode = False
    old = answers(server, ALIAS, made)
    status, printed, told = swap("--alias", ALIAS)
    assert (status, "prefix cache: not reset" in printed) == (0, True), told
    assert answers(server, ALIAS, made) != pytest.approx(old, abs=1e-2)


def test_version_that_says_nothing_of_its_reset_is_told(swap, server) -> None:
    server.reset_answer = None
    status, printed, told = swap("--alias", ALIAS)
    assert status == 0, told
    assert "this version of vLLM does not say whether it did it" in printed


def test_adapter_that_the_engine_dropped_is_unloaded_all_the_same(swap, server, made) -> None:
    server.engine_size = 1
    status, _, told = swap("--alias", ALIAS)
    assert status == 0, told
    assert OLD not in server.adapters


def test_other_name_of_the_old_adapter_stays_and_is_told(swap, server, made) -> None:
    server.load({"lora_name": "elsewhere", "lora_path": str(made.old_adapter)})
    status, _, told = swap("--alias", ALIAS)
    assert status == 0, told
    assert "'elsewhere' serves the old adapter as well, and goes on to" in told
    assert "elsewhere" in server.adapters


def test_same_swap_again_changes_nothing_and_is_recorded_again(swap, server, made) -> None:
    assert swap("--alias", ALIAS)[0] == 0
    served = dict(server.adapters)
    loads = server.count(LOAD)
    status, _, told = swap("--alias", ALIAS)
    assert status == 0, told
    assert server.adapters == served
    assert server.count(LOAD) == loads


# The requests of a swap with an alias and two rows: each question is asked of two answers, of the
# old adapter, the new one and the alias, in this order.
FAULTS = {
    "refused load": (Fault(LOAD, 1, "refuse"), "--max-lora-rank"),
    "load without an answer": (Fault(LOAD, 1, "hang"), "within 2 seconds"),
    "no connection at the comparison": (Fault(COMPLETIONS, 3, "drop"), "the connection failed"),
    "refused question": (Fault(COMPLETIONS, 4, "refuse"), "HTTP 500"),
    "alias not unloaded": (Fault(UNLOAD, 1, "refuse"), f"does not unload '{ALIAS}'"),
    "alias not loaded": (Fault(LOAD, 2, "refuse"), f"as '{ALIAS}'"),
    "alias without an answer": (Fault(LOAD, 2, "hang"), "within 2 seconds"),
    "connection lost after the alias moved": (Fault(LOAD, 2, "drop after"), "connection failed"),
    "cache not reset": (Fault(RESET, 1, "refuse"), "does not reset its prefix cache"),
    "alias does not answer": (Fault(COMPLETIONS, 5, "drop"), "the connection failed"),
    "old one not unloaded": (Fault(UNLOAD, 2, "refuse"), f"does not unload '{OLD}'"),
    "connection lost after the old one went": (Fault(UNLOAD, 2, "drop after"), "connection failed"),
    "cache not reset again": (Fault(RESET, 2, "drop"), "the connection failed"),
    "cache not reset at the end": (Fault(RESET, 3, "drop"), "the connection failed"),
    "no list before the load": (Fault(MODELS, 2, "drop"), "the connection failed"),
    "no list before the alias moves": (Fault(MODELS, 3, "drop"), "the connection failed"),
    "no list at the end": (Fault(MODELS, 4, "drop"), "the connection failed"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_old_adapter_stays_whatever_fails(swap, server, made, name) -> None:
    old = answers(server, ALIAS, made)
    server.requests.clear()
    fault, message = FAULTS[name]
    server.faults = [fault]
    status, printed, told = swap("--alias", ALIAS, "--timeout", 2)
    assert (status, printed) == (2, ""), told
    (line,) = [line for line in told.splitlines() if line.startswith("e2urec:")]
    assert message in line
    assert "the server serves what it did before" in line
    assert server.adapters == made.before
    assert answers(server, ALIAS, made) == old
    assert not (made.forgotten / "swaps").exists()


def test_wrong_scores_keep_the_adapter_from_going_live(swap, server, made) -> None:
    server.stand_ins[str(made.new_adapter)] = str(made.old_adapter)
    status, _, told = swap("--alias", ALIAS)
    assert (status, "differ from the run's own by up to" in told) == (2, True), told
    assert server.adapters == made.before
    assert server.count(UNLOAD) == 1, "of the new one alone"


def test_cache_that_requests_hold_fails_the_swap(swap, server, made, monkeypatch) -> None:
    monkeypatch.setattr("e2urec.api.swap.RESET_PAUSE_SECONDS", 0)
    server.reset_answer = False
    status, _, told = swap("--alias", ALIAS)
    assert (status, "did not reset its prefix cache in 5 attempts" in told) == (2, True), told
    assert "not all could be taken back" in told
    assert server.adapters == made.before


def test_record_that_cannot_be_written_takes_the_swap_back(swap, server, made, monkeypatch) -> None:
    def fail(*words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("e2urec.api.swap.write_swap", fail)
    status, _, told = swap("--alias", ALIAS)
    assert (status, "no space left" in told) == (2, True), told
    assert "the server serves what it did before" in told
    assert server.adapters == made.before


def test_server_that_is_gone_for_good_is_told_with_what_may_remain(swap, server, made) -> None:
    server.faults = [Fault(path, 1, "drop", lasts=True) for path in (UNLOAD, COMPLETIONS)]
    server.requests.clear()
    status, _, told = swap("--alias", "fresh")
    assert status == 2
    assert "not all could be taken back" in told
    assert "/v1/models" in told
    assert ALIAS in server.adapters


INTERRUPTS = [(LOAD, 1), (COMPLETIONS, 3), (UNLOAD, 1), (LOAD, 2), (RESET, 1), (UNLOAD, 2)]


@pytest.mark.parametrize(("path", "number"), INTERRUPTS)
def test_interrupt_takes_the_swap_back(swap, server, made, path, number) -> None:
    old = answers(server, ALIAS, made)
    server.requests.clear()
    server.faults = [Fault(path, number, "call", lambda: os.kill(os.getpid(), signal.SIGINT))]
    status, _, told = swap("--alias", ALIAS)
    assert (status, "the server serves what it did before" in told) == (130, True), told
    assert server.adapters == made.before
    assert answers(server, ALIAS, made) == old


def test_command_that_is_told_to_end_takes_the_swap_back(swap, server, made, monkeypatch) -> None:
    # What a process of its own makes of a signal is tested in test_signals.py.
    monkeypatch.setenv("VLLM_API_KEY", SECRET)
    server.api_key = SECRET
    server.requests.clear()
    server.faults = [Fault(UNLOAD, 2, "call", lambda: os.kill(os.getpid(), signal.SIGTERM))]
    status, printed, told = swap("--alias", ALIAS)
    assert (status, printed) == (130, ""), told
    assert "the server serves what it did before" in told
    assert SECRET not in told
    assert server.adapters == made.before


# --- what is refused before anything is changed


def test_wrong_api_key_is_one_line_without_the_key(swap, server, monkeypatch) -> None:
    server.api_key = SECRET
    for key in (None, "sk-another"):
        if key is not None:
            monkeypatch.setenv("VLLM_API_KEY", key)
        status, _, told = swap("--alias", ALIAS)
        assert (status, "refuses the API key" in told) == (2, True), told
        assert "sk-another" not in told
    monkeypatch.setenv("VLLM_API_KEY", "two\nlines")
    status, _, told = swap("--alias", ALIAS)
    assert (status, "VLLM_API_KEY: holds no key" in told) == (2, True), told


REFUSALS = {
    "replaces nothing that is there": (["--replaces", "gone"], "serves no 'gone'; it has:"),
    "alias of the base": (["--alias", BASE], "is its base model"),
    "rank": (["--alias", ALIAS, "--max-lora-rank", 16], "of rank 20, and --max-lora-rank is 16"),
    "no rows": (["--alias", ALIAS, "--rows", 0], "must be above 0"),
    "NaN": (["--alias", ALIAS, "--tolerance", "nan"], "must be above 0"),
    "password": (["--alias", ALIAS, "--vllm", "http://me:pass@host"], "holds a password"),
    "no URL": (["--alias", ALIAS, "--vllm", "localhost"], "is no URL such as"),
    "no bound": (["--alias", ALIAS, "--tolerance", "inf"], "--tolerance finite"),
    "no time": (["--alias", ALIAS, "--timeout", 1e30], "at most 86400 seconds"),
    "empty alias": (["--alias", ""], "--alias '': is empty"),
    "key in a query": (["--vllm", "http://host/?key=pass"], "neither ? nor #"),
    "key in a fragment": (["--vllm", "http://host/#pass"], "neither ? nor #"),
    "no port": (["--vllm", "http://host:pass"], "is no URL such as"),
    "nobody there": (["--alias", ALIAS, "--vllm", "http://127.0.0.1:9"], "see that it runs"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_swap_that_cannot_be_made_is_refused_before_anything_changes(swap, server, name) -> None:
    words, message = REFUSALS[name]
    server.requests.clear()
    status, _, told = swap(*words)
    assert (status, message in told) == (2, True), told
    assert "pass@" not in told
    assert not re.search(r"[=#:]pass\b", told)
    assert server.count(LOAD) == 0


def test_server_without_updates_or_with_a_short_window_is_refused(swap, server) -> None:
    server.max_tokens = 8
    status, _, told = swap("--alias", ALIAS)
    assert (status, "a higher --max-model-len" in told) == (2, True), told
    server.updating = False
    status, _, told = swap("--alias", ALIAS)
    assert (status, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in told) == (2, True), told


def test_adapter_of_another_run_and_a_whole_model_are_refused(call, server, made, tmp_path) -> None:
    words = ["--vllm", server.url, "--alias", ALIAS]
    other = ["--adapter", made.old_adapter]
    status, _, told = call("swap", made.forgotten, *words, *other)
    assert (status, "was not exported from" in told) == (2, True), told
    merged = tmp_path / "merged"
    whole = tmp_path / "whole"
    assert call("export", made.forgotten, "--merged", "--out", merged)[0] == 0
    rows = ["--rows", made.folder / "rows.jsonl", "--held", made.folder / "held.jsonl"]
    form = ["--format", made.folder / "form.j2"]
    assert call("import", merged, *rows, *form, "--out", whole)[0] == 0
    status, _, told = call("swap", whole, *words)
    assert (status, "holds a whole model" in told) == (2, True), told
    assert "--merged" in told


def test_adapter_is_exported_where_it_is_missing(call, server, made, tmp_path) -> None:
    folder = tmp_path / "fresh"
    words = ["--vllm", server.url, "--alias", ALIAS, "--rows", 2, "--adapter", folder]
    status, _, told = call("swap", made.forgotten, *words)
    assert (status, f"exported the adapter to '{folder}'" in told) == (0, True), told
    assert server.adapters[ALIAS] == str(folder)


# --- what only the answers tell


def serve_from_one_folder(server: StandIn, made: Made, names: tuple[str, ...]) -> str:
    """Serve the old adapter by `names` from a folder that holds the new one by now."""
    folder = str(made.folder / "mount")
    shutil.copytree(made.new_adapter, folder, dirs_exist_ok=True)
    for name in list(server.adapters):
        server.unload({"lora_name": name})
    server.stand_ins[folder] = str(made.old_adapter)
    for name in names:
        assert server.load({"lora_name": name, "lora_path": folder})[0] == 200
    del server.stand_ins[folder]
    return folder


def test_alias_is_moved_though_its_folder_is_the_same(swap, server, made) -> None:
    earlier_name = "e2urec-0000000000000000"
    folder = serve_from_one_folder(server, made, (ALIAS, earlier_name))
    words = ["--alias", ALIAS, "--server-path", folder, "--tolerance", 0.2]
    status, printed, told = swap(*words, "--json")
    assert (status, "cannot come back" in told) == (0, True), told
    assert answers(server, ALIAS, made) == pytest.approx(
        answers_alone(made.new_adapter, made), abs=1e-5
    )
    assert json.loads(printed)["old_adapters"] == [earlier_name]


def test_same_folder_without_a_reset_of_the_cache_is_refused(swap, server, made) -> None:
    folder = serve_from_one_folder(server, made, (ALIAS,))
    server.version = "0.32.0"
    server.dev_mode = False
    status, _, told = swap("--alias", ALIAS, "--server-path", folder)
    assert (status, "VLLM_SERVER_DEV_MODE=1" in told) == (2, True), told
    assert server.adapters == {ALIAS: folder}


def test_failed_swap_in_one_folder_does_not_say_that_the_old_one_is_back(
    swap, server, made
) -> None:
    folder = serve_from_one_folder(server, made, (ALIAS,))
    server.requests.clear()
    server.faults = [Fault(RESET, 2, "refuse")]
    status, _, told = swap("--alias", ALIAS, "--server-path", folder)
    assert status == 2
    assert f"missing is '{ALIAS}' from '{folder}'" in told
    assert "serves what it did before" not in told


def test_old_answers_are_refused_at_the_default_tolerance(swap, server, made) -> None:
    server.stand_ins[str(made.new_adapter)] = str(made.old_adapter)
    words = ["--alias", ALIAS, "--tolerance", 0.2]
    status, _, told = swap(*words)
    assert (status, "nothing says that they are not the old one's" in told) == (2, True), told
    assert server.adapters == made.before
    assert swap(*words, "--accept-alike")[0] == 0


# --- what others do meanwhile


def test_alias_that_somebody_else_took_meanwhile_stays_theirs(swap, server, made) -> None:
    server.requests.clear()
    theirs = {"lora_name": "fresh", "lora_path": str(made.old_adapter)}
    server.faults = [Fault(LOAD, 2, "call", lambda: server.load(theirs))]
    status, _, told = swap("--alias", "fresh")
    assert (status, "was loaded by somebody else meanwhile" in told) == (2, True), told
    assert "what somebody else changed stays" in told
    assert server.adapters == made.before | {"fresh": str(made.old_adapter)}


def test_change_by_somebody_else_stops_a_swap_before_its_own(swap, server, made) -> None:
    third = made.folder / "third"
    shutil.copytree(made.new_adapter, third, dirs_exist_ok=True)

    def move() -> None:
        server.unload({"lora_name": ALIAS})
        server.load({"lora_name": ALIAS, "lora_path": str(third)})

    for number in (1, 3):
        server.requests.clear()
        server.faults = [Fault(COMPLETIONS, number, "call", move)]
        status, _, told = swap("--alias", ALIAS)
        assert (status, f"somebody else changed '{ALIAS}'" in told) == (2, True), told
        assert server.adapters == made.before | {ALIAS: str(third)}
        server.unload({"lora_name": ALIAS})
        server.load({"lora_name": ALIAS, "lora_path": str(made.old_adapter)})
        # As the server lists them in the order in which they came.
        server.adapters = {name: server.adapters[name] for name in made.before}


def test_swap_of_several_processes_is_refused(swap, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    status, _, told = swap("--alias", ALIAS)
    assert (status, "without torchrun" in told) == (2, True), told


MALFORMED = [["x"], {"a": 1}, [None], [{"id": 1}], [{"id": "a", "root": 3}], 3]


@pytest.mark.parametrize("data", MALFORMED)
def test_list_of_models_in_another_form_is_one_line(swap, server, monkeypatch, data) -> None:
    monkeypatch.setattr(server, "list_models", lambda: (200, {"data": data}))
    status, _, told = swap("--alias", ALIAS)
    assert (status, "in another form than vLLM does" in told) == (2, True), told


def test_rollback_goes_on_after_a_step_that_failed(swap, server, made, monkeypatch) -> None:
    listed = server.list_models

    def list_models() -> tuple[int, Any]:
        # Broken as long as the alias stands for the new one, which is when the cache is reset.
        lies = server.adapters.get(ALIAS) == str(made.new_adapter) and server.count(MODELS) < 6
        return (200, {"data": ["x"]}) if lies else listed()

    monkeypatch.setattr(server, "list_models", list_models)
    server.requests.clear()
    status, _, told = swap("--alias", ALIAS)
    assert status == 2, told
    assert server.adapters == made.before


# --- whose prompts are sent


def users_asked(call, server: StandIn, made: Made, run: Path, *words: object) -> set[str]:
    server.requests.clear()
    options = ["--vllm", server.url, "--alias", "fresh", "--rows", 10_000, *words]
    status, _, told = call("swap", run, *options)
    assert status == 0, told
    prompts = []
    for path, body in server.requests:
        if path == COMPLETIONS:
            prompts += body["prompt"]
    shutil.rmtree(run / "swaps")
    return shown_in(prompts, made)[0]


def test_original_goes_live_again_without_the_users_erased_since(call, server, made) -> None:
    run = made.folder / "original"
    users = users_asked(call, server, made, run, "--adapter", made.old_adapter)
    assert len(users) > 5
    assert not users & set(ERASED)


def test_erased_rows_that_left_the_data_are_counted(made, monkeypatch) -> None:
    run = open_run(made.forgotten)
    gone = ErasedRows(ErasedRows.under(KEY).key, frozenset({"00" * 16}))
    monkeypatch.setattr("e2urec.api.serving.users.erased_rows_of", lambda *words: gone)
    sentences: list[str] = []
    check_rows(run, 2, None, sentences.append)
    assert any("1 erased rows are not in the data any more" in text for text in sentences)


def test_item_that_everybody_rated_leaves_rows_to_ask_about(made, monkeypatch) -> None:
    run = open_run(made.forgotten)
    data = Workspace(Recipe.build(run.record.recipe, place="run"), record=run.record).data
    of_item = data.item == data.item_ids.to_list().index("m0")
    erased = ErasedRows.under(KEY).with_rows(data, of_item)
    monkeypatch.setattr("e2urec.api.serving.users.erased_rows_of", lambda *words: erased)
    sentences: list[str] = []
    users, films = shown_in(check_rows(run, 10_000, None, sentences.append).prompts, made)
    assert len(users) > 5
    assert films == HELD_OUT
    assert any("those that name it otherwise are not known" in text for text in sentences)


# --- names, settings and records


def test_run_is_swapped_from_inside_its_folder(swap, call, server, made, monkeypatch) -> None:
    monkeypatch.chdir(made.forgotten)
    options = ["--vllm", server.url, "--rows", 2, "--alias", ALIAS]
    status, _, told = call("swap", ".", *options)
    assert status == 0, told
    assert server.adapters[ALIAS] == str(made.new_adapter)
    status, _, told = call("swap", ".", *options, "--adapter", "inner")
    assert (status, "is inside the run" in told) == (2, True), told


def test_record_in_another_run_is_told_as_such(swap, call, made) -> None:
    assert swap("--alias", ALIAS)[0] == 0
    folder = made.folder / "original" / "swaps"
    shutil.copytree(made.forgotten / "swaps", folder)
    _, printed, _ = call("show", made.folder / "original")
    shutil.rmtree(folder)
    assert "is the record of another run's swap" in " ".join(printed.split())
    assert "served it as" not in printed


def test_words_of_the_server_hold_no_key_and_no_code_of_a_terminal(
    swap, server, made, monkeypatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", SECRET)
    name = "odd\x1b[2J\nname"
    server.load({"lora_name": name, "lora_path": str(made.old_adapter)})
    status, printed, told = swap("--alias", ALIAS)
    assert status == 0, told
    assert "\x1b" not in printed + told
    words = f"bad\n\x1b[2J Bearer {SECRET}"
    monkeypatch.setattr(server, "load", lambda body: server.refusal(400, words))
    status, _, told = swap("--alias", "fresh", "--replaces", ALIAS)
    assert (status, "(the API key)" in told or "adapter of this run" in told) == (2, True), told
    assert SECRET not in told
    assert "\x1b" not in told
