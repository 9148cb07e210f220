"""Toy runs, ways to damage a file of a folder, and what a command makes of the damage."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from e2urec import cli
from e2urec.testing import toy_backbone, toy_tables
from key_files import write_key

SECONDS = 10
"""Longest time of a processor in which damage must be told: others may be at work beside us."""
WAITED_SECONDS = 300
"""Longest time until then, however busy the machine is."""
DEPTH = 100_000
SETTINGS = (
    "data.history=3",
    "data.calibration=0.1",
    "data.unseen=0.1",
    "tuning.schedule.epochs=1",
    "tuning.schedule.learning_rate=0.003",
    "tuning.schedule.precision=fp32",
    "scores.pairs=0",
)
QUICK = ("--method", "neggrad", "--set", "min_steps=2")

Damage = Callable[[Path, Path], None]
"""Damages a file; the second path is that of the same file in another run."""


@dataclass
class Toys:
    """Runs of toy models in a folder of their own.

    Attributes:
        root: of all of them.
    """

    root: Path

    def __post_init__(self) -> None:
        backbone = toy_backbone("causal")
        backbone.lm.save_pretrained(self.root / "base")
        backbone.tokenizer.save_pretrained(self.root / "base")
        ratings, items = toy_tables(users=24)
        ratings.join(items, on="item").write_csv(self.root / "ratings.csv")
        prompts = [json.dumps({"prompt": f"Liked: Movie {number}."}) for number in range(3)]
        self.examples.write_text("\n".join(prompts))
        write_key(self.key, hashlib.sha256(b"controller").digest())

    @property
    def examples(self) -> Path:
        """Prompts to score."""
        return self.root / "examples.jsonl"

    @property
    def key(self) -> Path:
        """The controller's key."""
        return self.root / "key"

    def train(self, name: str, *settings: str) -> Path:
        """Train an original."""
        words = ["--data", self.root / "ratings.csv", "--model", self.root / "base"]
        for setting in (*SETTINGS, *settings):
            words += ["--set", setting]
        return self.make(name, "train", *words)

    def make(self, name: str, *words: object) -> Path:
        """Make a run by a command."""
        out = self.root / name
        answer = call(self.key, *words, "--out", out)
        assert answer.status == 0, answer.error
        return out


@dataclass(frozen=True)
class Answer:
    """What a command did.

    Attributes:
        status: of its exit; None: an exception got out.
        output: standard output.
        error: standard error, or the exception.
        seconds: of a processor that it took.
        waited: seconds until it ended.
    """

    status: int | None
    output: str
    error: str
    seconds: float
    waited: float

    @property
    def refused(self) -> bool:
        """Whether it was refused as it should be: in one line with a remedy, and soon."""
        line = self.error.strip().splitlines()[-1:] or [""]
        told = line[0].startswith("e2urec: ") and ";" in line[0]
        soon = self.seconds < SECONDS and self.waited < WAITED_SECONDS
        return self.status == 2 and told and soon


def call(key: Path | None, *words: object) -> Answer:
    """Run the command line in this process."""
    output = io.StringIO()
    error = io.StringIO()
    environment = dict(os.environ)
    if key is not None:
        os.environ["E2UREC_KEY_FILE"] = str(key)
    before = sys.argv
    started = time.perf_counter()
    # Of this thread, in which all but products of matrices is done.
    began = time.thread_time()
    status: int | None = None
    try:
        sys.argv = ["e2urec", *map(str, words)]
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
            cli.main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    except Exception as bug:
        error.write(f"{type(bug).__name__}: {bug}")
    finally:
        sys.argv = before
        os.environ.clear()
        os.environ.update(environment)
    return Answer(
        status,
        output.getvalue(),
        error.getvalue(),
        seconds=time.thread_time() - began,
        waited=time.perf_counter() - started,
    )


@dataclass
class Tally:
    """Tries, and those that went ill."""

    tried: int = 0
    bad: list[str] = field(default_factory=list)

    def count(self, good: bool, what: str) -> None:
        """Count one try."""
        self.tried += 1
        if not good:
            self.bad.append(what)

    def __str__(self) -> str:
        good = self.tried - len(self.bad)
        return f"tried {self.tried}, good {good}, bad {len(self.bad)}"


# --- ways to damage a file


def _truncate(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    # Near the end, where weights are, and not headers.
    content[-len(content) // 4 - 1] ^= 1
    path.write_bytes(content)


def _remove(path: Path, other: Path) -> None:
    path.unlink()


def _folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path, other: Path) -> None:
    # Outside the run, and with the very same content.
    outside = Path(tempfile.mkdtemp()) / path.name
    shutil.move(path, outside)
    path.symlink_to(outside)


def _folder_link(path: Path, other: Path) -> None:
    outside = Path(tempfile.mkdtemp()) / "folder"
    if path.parent.name in ("model", "adapter"):
        shutil.move(path.parent, outside)
        path.parent.symlink_to(outside)
    else:
        outside.mkdir()
        path.with_name("more").symlink_to(outside)


def _foreign(path: Path, other: Path) -> None:
    own = path.read_bytes()
    content = other.read_bytes() if other.is_file() else own
    # Some files are the same in every run.
    path.write_bytes(own + b"\0" if content == own else content)


def _wrong_types(path: Path, other: Path) -> None:
    values = None
    with contextlib.suppress(ValueError):
        values = json.loads(path.read_bytes())
    if isinstance(values, dict):
        changed = {name: [{"a": None}] for name in values}
        # Of the format, lest that alone be refused.
        path.write_text(json.dumps(changed | {"format": values.get("format", 0)}))
    else:
        path.write_text("[3]")


def _deep(path: Path, other: Path) -> None:
    path.write_text('{"a":' * DEPTH + "1" + "}" * DEPTH)


def _deep_list(path: Path, other: Path) -> None:
    path.write_text("[" * DEPTH)


def _additional(path: Path, other: Path) -> None:
    path.with_name(f"{path.name}.more").write_text("{}")


DAMAGES: dict[str, Damage] = {
    "truncated": _truncate,
    "empty": _empty,
    "one bit flipped": _flip,
    "missing": _remove,
    "replaced by a folder": _folder,
    "replaced by a link": _link,
    "with a link to a folder": _folder_link,
    "of another run": _foreign,
    "JSON of wrong types": _wrong_types,
    "JSON nested deeply": _deep,
    "a list nested deeply": _deep_list,
    "with an additional file": _additional,
}


@contextlib.contextmanager
def damaged(folder: Path, name: str, damage: Damage, other: Path) -> Iterator[None]:
    """Inside, file `name` of a folder is damaged; then the folder is as it was."""
    backup = folder.with_name(f"{folder.name}.backup")
    shutil.copytree(folder, backup)
    try:
        damage(folder / name, other / name)
        yield
    finally:
        shutil.rmtree(folder)
        backup.rename(folder)


@contextlib.contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Inside, a file cannot be opened, as with another user's mode."""
    real = io.open

    def refuse(file: object, *arguments: object, **options: object) -> object:
        if isinstance(file, str | Path) and Path(file) == path:
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *arguments, **options)  # type: ignore[call-overload]

    io.open = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        io.open = real


def renew_record(run: Path) -> None:
    """Make the hashes of a run's record those of its files, as whoever forges one would."""
    path = run / "run.json"
    record = json.loads(path.read_text())
    record.pop("mac", None)
    record["files"] = {}
    for file in sorted(run.rglob("*")):
        if file.is_file() and file.name not in ("run.json", "rehearsal.json"):
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            name = file.relative_to(run).as_posix()
            record["files"][name] = {"bytes": len(content), "sha256": digest}
    path.write_text(json.dumps(record))


def files_of(run: Path) -> list[str]:
    """All files of a folder, by their names in it."""
    return sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
