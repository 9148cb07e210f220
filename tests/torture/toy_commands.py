"""Commands on toy models, each in a process of its own that costs little to start.

The processes are forked from one that has imported what they need and computed nothing: threads of
libraries do not survive a fork.
"""

import contextlib
import io
import json
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Imported for the processes that are forked.
import file_events

from e2urec import cli
from e2urec.api import evaluate, prepare, rehearse, train, unlearn  # noqa: F401
from e2urec.core import sealing
from e2urec.experiments.comparison import compare  # noqa: F401
from e2urec.runs import row_digests
from e2urec.testing import toy_backbone, toy_tables

STEP = int(os.environ.get("TORTURE_STEP", "1"))
"""Of so many events one is tried: a quicker look than at all of them."""
SMOKE = Path(__file__).parents[2] / "recipes" / "compare-smoke.toml"
METHOD = ("--method", "neggrad", "--set", "min_steps=2")
TUNING = (
    "tuning.schedule.epochs=1",
    "tuning.schedule.learning_rate=0.01",
    "tuning.schedule.precision='fp32'",
    "scores.pairs=0",
)
DATA = ("data.history=2", "data.calibration=0.1", "data.unseen=0.1")
COMPARE = (
    "data.rows=60",
    "data.per_user=8",
    "data.test_rows=30",
    "data.held_rows=30",
    "model.layers=none",
    "retrained=1",
    "compare.resamples=100",
    "compare.methods=['neggrad']",
    "compare.settings={}",
    "request.ratio=0.3",
)


def words_of(command: str, folder: Path) -> list[str]:
    """The command line of a command in a folder that `prepare_folder` made."""
    own = [f"data.source={folder / 'ratings.csv'}", f"model.name={folder / 'toy'}", *DATA, *TUNING]
    original = str(folder / "original")
    words = {
        "train": ["train", "--out", original, *_sets(own)],
        "unlearn": ["unlearn", original, "--out", str(folder / "unlearned"), *METHOD],
        "prepare": [
            "prepare",
            original,
            "--out",
            str(folder / "prepared"),
            *_sets(["scores.pairs=1"]),
        ],
        "rehearse": ["rehearse", original, "--times", "2", *METHOD],
        "evaluate": ["evaluate", str(folder / "unlearned"), "--shadows", "2"],
        "compare": [
            "compare",
            str(SMOKE),
            "--out",
            str(folder / "comparison"),
            *_sets([*own, *COMPARE]),
        ],
    }
    return words[command]


def _sets(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def prepare_folder(folder: Path) -> None:
    """Write the toy model, the ratings and the key; `folder` is there."""
    backbone = toy_backbone("causal")
    backbone.lm.save_pretrained(folder / "toy")
    backbone.tokenizer.save_pretrained(folder / "toy")
    ratings, items = toy_tables(users=24)
    ratings.join(items, on="item").write_csv(folder / "ratings.csv")
    (folder / "key").write_bytes(b"the controller's key, 32 bytes or more")
    (folder / "key").chmod(0o600)


def call(words: list[str], folder: Path) -> tuple[int, str]:
    """Run the command line in this process; returns its exit status and what it says of errors."""
    os.environ["E2UREC_KEY_FILE"] = str(folder / "key")
    sys.argv = ["e2urec", *words]
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0), error.getvalue()
        except Exception:
            return 1, traceback.format_exc()
    return 0, error.getvalue()


def killed_call(words: list[str], folder: Path, kill_at: int | None, report: Path) -> None:
    """Run a command that SIGKILL ends before one event; `report` gets status and events."""
    # Salts are random, and the same command shall write the same bytes.
    row_digests.secrets = SimpleNamespace(token_bytes=bytes)
    sealing.secrets = SimpleNamespace(token_bytes=bytes)
    counter = file_events.Counter(folder, kill_at)
    file_events.listen(counter)
    status, _ = call(words, folder)
    report.write_text(json.dumps({"status": status, "events": counter.count}))


def failing_call(words: list[str], folder: Path, fails_at: int, number: int, report: Path) -> None:
    """Run a command on a disk that fails from one event on; `report` gets status and error."""
    file_events.listen(file_events.FailingDisk(folder, fails_at, number))
    status, error = call(words, folder)
    report.write_text(json.dumps({"status": status, "error": error}))


def logged_call(words: list[str], folder: Path, results: list[Path], report: Path) -> None:
    """Run a command, and check that its results were synced; `report` gets what was not."""
    log = file_events.SyncLog(folder)
    file_events.listen(log)
    status, _ = call(words, folder)
    for result in results:
        log.check(result)
        # The folder that holds the name, and nothing else in it.
        state = result.parent.stat()
        if log.synced.get(state.st_ino, (0, 0))[0] != state.st_mtime_ns:
            log.unsynced.append(f"name of {result.name}")
    count = sum(path.is_file() for result in results for path in (result, *result.rglob("*")))
    answer = {"status": status, "files": count, "named": log.named, "unsynced": log.unsynced}
    report.write_text(json.dumps(answer))


@contextlib.contextmanager
def fork_server() -> Iterator[Callable[..., int | None]]:
    """Yield a function that runs another in a forked process, and returns its exit code."""
    place = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([place, os.environ.get("PYTHONPATH", "")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy_commands"])

    def run(target: Callable[..., None], *arguments: object) -> int | None:
        process = context.Process(target=target, args=arguments)
        process.start()
        process.join(300)
        return process.exitcode

    yield run
