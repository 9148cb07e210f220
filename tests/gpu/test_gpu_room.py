"""What commands take of the GPU's memory, and that they give it back."""

import gc
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from e2urec.api.evaluate import evaluate
from e2urec.api.request import RequestOptions
from e2urec.api.train import train
from e2urec.api.unlearn import unlearn
from e2urec.methods import build
from e2urec.runs.folder import open_run
from e2urec.testing import toy_tokenizer

pytestmark = pytest.mark.gpu

REQUEST = RequestOptions(ratio=0.2)
SMALL = [
    "data.rows=80",
    "data.held_rows=40",
    "data.test_rows=40",
    "tuning.schedule.batch_size=2",
]
FULL: list[str] = []
ADAPTER = ["tuning.lora.rank=4"]
FEW_ROWS = {"batch_size": 2, "min_steps": 4, "augment_min_steps": 4}


@pytest.fixture(scope="module")
def broad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 230 MB, beside which the states of a toy's rows are few."""
    folder = tmp_path_factory.mktemp("broad")
    tokenizer = toy_tokenizer(closes=False)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=2304,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def model_bytes(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


def held_bytes(device: torch.device) -> int:
    """Memory of all tensors on the device that something still holds."""
    gc.collect()
    return torch.cuda.memory_allocated(device)


def peak_copies(device: torch.device, size: int, command: Callable[[], object]) -> float:
    """Most memory that tensors took on the device during a command, in models."""
    before = held_bytes(device)
    torch.cuda.reset_peak_memory_stats(device)
    command()
    return (torch.cuda.max_memory_allocated(device) - before) / size


@pytest.mark.parametrize(
    ("tuning", "most_copies"), [(ADAPTER, 3.0), (FULL, 2.0)], ids=["lora", "full"]
)
def test_commands_take_few_copies_of_the_model_and_let_go_of_them(
    tuning, most_copies, on_gpu, recipe, broad, tmp_path
):
    size = model_bytes(broad)
    before = held_bytes(on_gpu)
    settings = [f"model.name={broad}", *SMALL, *tuning]
    run = train(recipe.updated(settings), tmp_path / "original")
    # Less than any part of a model: cuBLAS holds some 30 MB for its own work.
    assert held_bytes(on_gpu) < before + 0.2 * size
    method = build("e2urec", FEW_ROWS, "gain")

    def forget() -> None:
        unlearn(run, tmp_path / "run", method, REQUEST)

    copies = peak_copies(on_gpu, size, forget)
    warnings.warn(f"unlearn: {copies:.2f} copies of the model at most", stacklevel=2)
    assert copies < most_copies
    assert held_bytes(on_gpu) < before + 0.2 * size

    def measure() -> None:
        evaluate(open_run(tmp_path / "run"), (), REQUEST)

    copies = peak_copies(on_gpu, size, measure)
    warnings.warn(f"evaluate: {copies:.2f} copies of the model at most", stacklevel=2)
    assert held_bytes(on_gpu) < before + 0.2 * size


def test_gpu_without_room_for_the_model_is_told_in_one_line(on_gpu, call, recipe, broad, tmp_path):
    source = recipe.data.source
    words = ("train", "--data", source, "--model", broad, "--out", tmp_path / "run")
    before = held_bytes(on_gpu)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(on_gpu).total_memory
    room = torch.cuda.memory_reserved(on_gpu) + model_bytes(broad) // 2
    try:
        torch.cuda.set_per_process_memory_fraction(room / total, on_gpu)
        status, _, error = call(*words, "--set", "data.history=3")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, on_gpu)
    assert status == 2
    assert "out of memory; lower" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
    assert held_bytes(on_gpu) < before + 0.2 * model_bytes(broad)
