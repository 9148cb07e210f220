"""Fixtures that several files share. What they are made of is in `e2urec.testing`."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads cost toy models more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A name that is no model's is asked for on the network, again and again for 23 seconds.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# As the command line does: they tell of kernels and enums that nobody asked for.
for library in ("torchao", "torch.utils._pytree"):
    logging.getLogger(library).setLevel(logging.ERROR)

# Until all tests are collected, nearly everything that is made stays: there is no garbage to find.
gc.disable()

import pytest

from e2urec import cli
from key_files import write_key

# The process that hands out the tests runs none: it need not wait for PyTorch.
if TYPE_CHECKING:
    from e2urec.core.locks import SharedFolder
    from e2urec.models.backbone import Backbone
    from e2urec.models.recommender import Recommender

# Few tests need it, so that those of a GPU run where it is not installed, too.
with contextlib.suppress(ImportError):
    from hypothesis import settings

    # A busy machine is no failure.
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what was imported: half a million objects that stay."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def no_key_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A key for all tests, so that none makes or reads that of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        key = write_key(tmp_path_factory.mktemp("key") / "session.key")
        patch.setenv("E2UREC_KEY_FILE", str(key))
        yield


@pytest.fixture(scope="session", autouse=True)
def entry_points_read_once() -> Iterator[None]:
    """Packages' entry points as they were at first: nobody installs one while tests run.

    They are read whenever a method is looked up, which takes most of the time of a short test.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "entry_points", functools.cache(metadata.entry_points))
        yield


@pytest.fixture(params=["causal", "seq2seq"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    from e2urec.testing import toy_backbone

    return toy_backbone(request.param)


@pytest.fixture
def shadow_folder(tmp_path: Path) -> Iterator[SharedFolder]:
    """An open folder in which shadow models are kept."""
    from e2urec.core.locks import SharedFolder

    with SharedFolder.open(tmp_path / "shadows") as folder:
        yield folder


@pytest.fixture
def recommender(backbone: Backbone) -> Recommender:
    from e2urec.data.prompts import TEMPLATES
    from e2urec.models.recommender import Recommender

    return Recommender(backbone, TEMPLATES["compact"])


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from toy_data import save_toy

    return save_toy(tmp_path_factory.mktemp("model"))


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command line; returns (exit status, standard output, standard error)."""
    from e2urec.runs.folder import WORKED_FOR

    monkeypatch.setenv("E2UREC_KEY_FILE", str(write_key(tmp_path / "key")))

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["e2urec", *map(str, words)])
        # A command of its own, which knows nothing of what earlier ones of this process left.
        WORKED_FOR.clear()
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run
