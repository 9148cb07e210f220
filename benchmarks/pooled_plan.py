"""What `requests.py` does: whom its requests name, and which methods they are put to."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from e2urec.core.arrays import Ints
from e2urec.core.errors import ConfigError, DataError
from e2urec.core.seeding import stream
from e2urec.experiments.recipe import parse_settings, split_settings
from e2urec.methods import build
from e2urec.unlearning.method import Method

FOLDS = 5
"""Requests that cover all training users, so that each names 20% of them."""
PARTS = 5
"""Smaller requests that a fold is cut into, of 4% of the users each."""

EXAMPLE = "default=e2urec"
# It is the name of a folder as well, beside the folder `rows`.
NAME = re.compile(r"(?!rows$)[A-Za-z0-9][A-Za-z0-9_.-]*")
PRESET = "preset"


# --- whom the requests name


class Size(StrEnum):
    """The sizes of requests, as tables call them."""

    FOLD = "20%"
    PART = "4%"
    SINGLE = "single"


STEMS = {Size.FOLD: "all", Size.PART: "part", Size.SINGLE: "user"}
"""What the folder of a request is called, by size."""


@dataclass(frozen=True)
class PooledRequest:
    """One of the requests whose rows are pooled.

    Attributes:
        size: of the request.
        fold: the fold that its users are of, counted from 1.
        number: among the requests of its size in the fold, counted from 1.
        users: codes of the users that it names.
    """

    size: Size
    fold: int
    number: int
    users: Ints

    @property
    def key(self) -> str:
        """Its folder: `fold-1/part-3`."""
        return f"{fold_key(self.fold)}/{STEMS[self.size]}-{self.number}"


@dataclass(frozen=True)
class Fold:
    """A fifth of the training users, and the requests that name some of them.

    Attributes:
        number: counted from 1.
        users: codes of all users.
        requests: in the order in which they are made.
    """

    number: int
    users: Ints
    requests: tuple[PooledRequest, ...]

    @property
    def whole(self) -> PooledRequest:
        """The request of all its users, to which the retrained models belong."""
        return PooledRequest(Size.FOLD, self.number, 1, np.sort(self.users))


def fold_key(number: int) -> str:
    """The folder of a fold."""
    return f"fold-{number}"


def folds_of(users: Ints, *, seed: int, single: int, sizes: Sequence[Size]) -> list[Fold]:
    """Cut the training users into disjoint folds, and these into smaller requests.

    Args:
        users: (n,) user code of each training row.
        seed: of the order of the users. Neither `single` nor `sizes` changes who is in a request.
        single: requests of a single user in each fold, at most.
        sizes: of the requests.

    Raises:
        DataError: there are fewer users than folds.
    """
    ids = np.unique(users)
    if len(ids) < FOLDS:
        raise DataError(f"{len(ids)} training users: {FOLDS} folds need one each; keep more rows")
    order = stream(seed, "pooled requests").permutation(ids)
    folds = []
    for number, members in enumerate(np.array_split(order, FOLDS), start=1):
        groups = {
            Size.FOLD: [members],
            Size.PART: np.array_split(members, PARTS),
            Size.SINGLE: np.split(members, len(members))[:single],
        }
        requests: list[PooledRequest] = []
        for size in Size:
            if size in sizes:
                requests += _requests(size, number, groups[size])
        folds.append(Fold(number, members, tuple(requests)))
    return folds


def _requests(size: Size, fold: int, groups: Sequence[Ints]) -> list[PooledRequest]:
    # A fold of fewer than five users has parts of nobody.
    names = [group for group in groups if len(group)]
    requests = []
    for number, group in enumerate(names, start=1):
        requests.append(PooledRequest(size, fold, number, np.sort(group)))
    return requests


# --- the methods


@dataclass(frozen=True)
class NamedMethod:
    """A method with its settings, under a name of its own."""

    name: str
    method: Method

    def as_dict(self) -> dict[str, Any]:
        """The method and all its settings as plain JSON values."""
        return {"method": self.method.name, "settings": self.method.model_dump(mode="json")}


def variants_of(texts: Iterable[str], file: Path | None) -> list[NamedMethod]:
    """The variants of the command line, then those of a TOML file.

    Raises:
        ConfigError: there is none, a name has two, or one cannot be read.
    """
    variants = [parse_variant(text) for text in texts]
    if file is not None:
        variants += read_variants(file)
    if not variants:
        raise ConfigError(f"no variant: nothing would be forgotten; give --variant {EXAMPLE}")
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"variant '{name}': is there twice; give one of them another name")
    return variants


def parse_variant(text: str) -> NamedMethod:
    """`NAME=METHOD` or `NAME=METHOD:key=value,key=value`; the key `preset` is the preset's.

    Raises:
        ConfigError: as `build` does, and for a text of another form.
    """
    name, sign, rest = text.partition("=")
    method, colon, listed = rest.partition(":")
    if not sign or not method:
        raise ConfigError(f"--variant {text}: names no method; write NAME=METHOD, as {EXAMPLE}")
    settings = split_settings(listed) if colon else []
    for setting in settings:
        if "=" not in setting:
            raise ConfigError(
                f"--variant {text}: '{setting}' has no '='; write key=value, such as alpha=2"
            )
    return _variant(name, method, parse_settings(settings))


def read_variants(path: Path) -> list[NamedMethod]:
    """The tables of a TOML file: its name, `method` and any settings of the method.

    Raises:
        ConfigError: the file is no TOML, or as `build` does.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"variants '{path}': cannot be read ({error.strerror}); name a TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"variants '{path}': {error}; correct the line") from error
    variants = []
    for name, table in tables.items():
        if not isinstance(table, dict) or not isinstance(table.get("method"), str):
            raise ConfigError(f"variants '{path}': [{name}] names no method; add method = \"…\"")
        settings = dict(table)
        variants.append(_variant(name, settings.pop("method"), settings))
    return variants


def _variant(name: str, method_name: str, settings: dict[str, Any]) -> NamedMethod:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"variant '{name}': is no name for its folder; use letters, digits, '-', '_' and '.'"
        )
    preset = settings.pop(PRESET, "default")
    method = build(method_name, settings, preset)
    if method.prepares:
        raise ConfigError(
            f"variant '{name}': method '{method_name}' trains an original of its own, and all "
            "variants here share one; measure it with e2urec compare"
        )
    return NamedMethod(name, method)
