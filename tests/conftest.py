"""Toy models with real architectures and a tokenizer trained on the spot; generated interactions."""

import os
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads cost toy models more than they bring

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from e2urec import cli
from e2urec.data.interactions import Interactions
from e2urec.data.prompts import TEMPLATES
from e2urec.data.requests import ErasureRequest, resolve
from e2urec.data.splits import SplitSettings, split
from e2urec.models.adapters import LoRA
from e2urec.models.backbone import Backbone
from e2urec.models.recommender import Recommender
from e2urec.training.loop import Phase, Schedule
from e2urec.training.supervised import Tuning, tune
from e2urec.unlearning.task import Task

settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")

WORDS = [
    "Liked:",
    "Disliked:",
    "none",
    "Will the user like",
    "Yes",
    "No",
    "Movie",
    "Toy Story (1995)",
]


def toy_tokenizer(*, closes: bool) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows the prompts' words; with `closes` it ends a text as T5's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(
        [f"{a} {b}? Yes {b} No" for a in WORDS for b in WORDS] * 4, trainer
    )
    if closes:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def toy_backbone(kind: str) -> Backbone:
    torch.manual_seed(0)
    tokenizer = toy_tokenizer(closes=kind == "seq2seq")
    if kind == "causal":
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
            max_position_embeddings=512,
        )
        lm = LlamaForCausalLM(config)
    else:
        config = T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_ff=64,
            d_kv=8,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.1,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
        lm = T5ForConditionalGeneration(config)
    lm.set_attn_implementation(
        "eager"
    )  # as load_backbone does on a CPU, so that reloading changes no bit
    return Backbone(lm.eval(), tokenizer, f"toy-{kind}")


@pytest.fixture(params=["causal", "seq2seq"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return toy_backbone(request.param)


@pytest.fixture
def recommender(backbone: Backbone) -> Recommender:
    return Recommender(backbone, TEMPLATES["compact"])


def generated_tables(
    users: int = 12, rows: int = 14, seed: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Ratings with ties in time, so that the order of rows in the file matters, and titles."""
    random = np.random.default_rng(seed)
    n = users * rows
    ratings = pl.DataFrame(
        {
            "user": [f"u{k}" for k in np.repeat(np.arange(users), rows)],
            "item": random.integers(0, 30, n),
            "rating": random.integers(1, 6, n),
            "time": random.integers(1_000, 1_000 + n // 3, n),
        }
    )
    items = pl.DataFrame(
        {"item": range(30), "title": [f"Movie {k} ({1960 + k})" for k in range(30)]}
    )
    return ratings.sample(n, shuffle=True, seed=seed), items


def generated(users: int = 12, rows: int = 14, seed: int = 0) -> Interactions:
    """The same, validated and ordered."""
    return Interactions.from_tables(*generated_tables(users, rows, seed), place="generated")


TUNING = Tuning(schedule=Schedule(epochs=2, learning_rate=3e-3, batch_size=8, precision="fp32"))


def toy_task(kind: str, *, lora: bool = False, seed: int = 5) -> Task:
    """An original tuned on generated rows, asked to forget a fifth of its users."""
    base = toy_backbone(kind)
    tuning = TUNING.model_copy(update={"lora": LoRA(rank=4)}) if lora else TUNING
    parts = split(generated(), SplitSettings(history=3, unseen=0.1, calibration=0.1), seed=1)
    rows = resolve(ErasureRequest.draw(parts.train, 0.2, 3), parts)
    probe = Recommender(base, TEMPLATES["compact"])
    encoded = {name: probe.encode(getattr(rows, name)) for name in ("forget", "retain", "valid")}
    held = {name: probe.encode(getattr(parts, name)) for name in ("calibration", "unseen")}
    train = probe.encode(parts.train)
    original, _ = tune(probe, tuning, train, encoded["valid"], Phase("original", seed))
    return Task(
        original=original, base=base, tuning=tuning, **encoded, **held, seed=seed, precision="fp32"
    )


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
        found = capsys.readouterr()
        return status, found.out, found.err

    return run
