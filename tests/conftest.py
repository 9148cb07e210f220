"""Fixtures that several files share. What they are made of is in `e2urec.testing`."""

import logging
import os
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads cost toy models more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As the command line does: they tell of kernels and enums that nobody asked for.
for library in ("torchao", "torch.utils._pytree"):
    logging.getLogger(library).setLevel(logging.ERROR)

import pytest
from hypothesis import settings

from e2urec import cli
from e2urec.data.prompts import TEMPLATES
from e2urec.models.backbone import Backbone
from e2urec.models.recommender import Recommender
from e2urec.testing import toy_backbone

# A busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(params=["causal", "seq2seq"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return toy_backbone(request.param)


@pytest.fixture
def recommender(backbone: Backbone) -> Recommender:
    return Recommender(backbone, TEMPLATES["compact"])


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    backbone = toy_backbone("causal")
    backbone.lm.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command line; returns (exit status, standard output, standard error)."""
    (tmp_path / "key").write_bytes(b"controller")
    monkeypatch.setenv("E2UREC_KEY_FILE", str(tmp_path / "key"))

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["e2urec", *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run
