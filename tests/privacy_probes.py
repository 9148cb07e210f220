"""What somebody tries who has a run folder, and guesses of rows, but not the controller's key."""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from e2urec.data.interactions import Interactions

# Eight bytes are as few as any hash here is cut down to.
PREFIX = 8
HEX = re.compile(rb"[0-9a-f]{16,}")


@dataclass(frozen=True)
class Folder:
    """All that folders say: names and contents of their files, and the salts among these."""

    content: bytes
    salts: tuple[bytes, ...]

    @classmethod
    def of(cls, *folders: Path) -> "Folder":
        """Everything in `folders` together."""
        pieces: list[bytes] = []
        salts: set[bytes] = {b""}
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                pieces.append(str(path.relative_to(folder)).encode())
                if path.is_file():
                    pieces.append(path.read_bytes())
                if path.suffix == ".npz":
                    salts |= _small_arrays(path)
                # Whatever looks like a key or a salt is tried as one.
                if path.suffix == ".json" and path.name in ("run.json", "erased.json"):
                    for text in HEX.findall(path.read_bytes())[:8]:
                        salts.add(bytes.fromhex(text.decode()[: len(text) // 2 * 2]))
        return cls(b"\n".join(pieces), tuple(sorted(salts)))

    @cached_property
    def windows(self) -> np.ndarray:
        """Every run of eight bytes, sorted."""
        content = np.frombuffer(self.content, np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(content, PREFIX)
        return np.unique(np.ascontiguousarray(windows).view(np.uint64).ravel())

    def has_any(self, digests: Iterable[bytes]) -> bool:
        """Whether one of `digests` is there, raw or in hexadecimal, whole or cut down."""
        needles = []
        for digest in digests:
            needles.append(digest[:PREFIX])
            needles.append(digest[:PREFIX].hex().encode()[:PREFIX])
        columns = np.frombuffer(b"".join(needles), np.uint64)
        # The windows are sorted, and many: each needle is looked up in them.
        place = np.searchsorted(self.windows, columns)
        place = np.minimum(place, len(self.windows) - 1)
        present = np.flatnonzero(self.windows[place] == columns)
        # Half of a hash in hexadecimal may be there by chance: the whole prefix decides.
        return any(self._has(needles, int(n)) for n in present)

    def _has(self, needles: list[bytes], n: int) -> bool:
        if n % 2 == 0:
            return True
        return needles[n - 1].hex().encode() in self.content

    def mentions(self, text: str) -> bool:
        """Whether a text stands anywhere."""
        return text.encode() in self.content


def _small_arrays(path: Path) -> set[bytes]:
    with np.load(path, allow_pickle=False) as columns:
        return {column.tobytes() for column in dict(columns).values() if column.nbytes <= 64}


def row_texts(data: Interactions, row: int) -> Iterator[str]:
    """A row as whoever guesses it may write it down."""
    user = str(data.user_ids[int(data.user[row])])
    item = str(data.item_ids[int(data.item[row])])
    time, rating = int(data.time[row]), float(data.rating[row])
    yield f"{json.dumps(user)},{json.dumps(item)},{time},{rating:.9g}"
    yield f"{user},{item},{rating:.9g},{time}"
    yield f"{user},{item}"
    yield json.dumps([user, item])
    yield json.dumps(["interaction", user, item])
    yield user


def hashes_of(texts: Iterable[str], salts: Iterable[bytes]) -> Iterator[bytes]:
    """Every hash of `texts` that somebody would try, with every salt that he sees."""
    for text in texts:
        plain = text.encode()
        for salt in salts:
            for size in (8, 16, 32, 64):
                yield hashlib.blake2b(plain, key=salt[:64], digest_size=size).digest()
            for message in (salt + plain, plain + salt):
                for name in ("md5", "sha1", "sha256", "sha512", "blake2s"):
                    yield hashlib.new(name, message).digest()
            yield hmac.digest(salt, plain, "sha256")


def fingerprints(data: Interactions) -> Iterator[bytes]:
    """Digests of all rows together: whoever knows all but one tests his guess by it."""
    yield bytes.fromhex(data.fingerprint())
    for size in (8, 16, 32):
        # As the salt was once made.
        digest = hashlib.blake2b(digest_size=16)
        for row in range(len(data)):
            text = next(row_texts(data, row))
            digest.update(hashlib.blake2b(text.encode(), digest_size=size).digest())
        yield digest.digest()


def told_rows(folder: Folder, data: Interactions, rows: Iterable[int]) -> list[int]:
    """The rows that can be told from a folder without the key."""
    told = []
    for row in rows:
        if folder.has_any(hashes_of(row_texts(data, row), folder.salts)):
            told.append(row)
    return told
