"""Commands on the GPU, from run folder to run folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gpu_device import CPU, running_on
from safetensors.torch import load_file

from e2urec.api.evaluate import evaluate
from e2urec.api.request import RequestOptions
from e2urec.api.score import score
from e2urec.api.train import train
from e2urec.api.unlearn import unlearn
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.models.predictions import predict
from e2urec.runs.folder import Run
from e2urec.runs.resumption import CheckpointOptions

pytestmark = pytest.mark.gpu

REQUEST = RequestOptions(ratio=0.2)
ADAPTER = ["tuning.lora.rank=4", "tuning.lora.dropout=0.1", "scores.pairs=1"]
FULL = ["tuning.schedule.epochs=2"]
UPPER = {"rank": 2, "targets": "all", "upper": 0.5}
METHODS = {
    "default": ("e2urec", "default", {}),
    "gain": ("e2urec", "gain", {"lora": UPPER, "min_steps": 4}),
    "scores": ("e2urec", "scores", {"joint": 0.5}),
    "neggrad": ("neggrad", "default", {"min_steps": 4}),
    "ifru": ("ifru", "default", {"rows": 16, "iterations": 2}),
    "retrain": ("retrain", "default", {}),
}
SAME_SCORE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def adapter_run(recipe: Recipe, device: torch.device, folder: Path) -> Run:
    """An original as base + LoRA with out-of-fold scores, made on the device."""
    with running_on(device):
        return train(recipe.updated(ADAPTER), folder / "adapter")


@pytest.fixture(scope="module")
def full_run(recipe: Recipe, device: torch.device, folder: Path) -> Run:
    """A fully tuned original, made on the device."""
    with running_on(device):
        return train(recipe.updated(FULL), folder / "full")


def prompts(folder: Path) -> Path:
    file = folder / "prompts.jsonl"
    lines = [f"Liked: {'Toy Story (1995), ' * count}none. Heat?" for count in range(8)]
    file.write_text("".join(json.dumps({"prompt": line}) + "\n" for line in lines))
    return file


def check_scores_on_both_devices(run: Run, device: torch.device, file: Path) -> None:
    """A run that was written on the device says the same there and on the CPU."""
    scores = []
    for place in (device, CPU):
        with running_on(place):
            scores.append(score(run, file))
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores[0], scores[1], atol=SAME_SCORE)


@pytest.mark.parametrize("name", METHODS)
def test_adapter_that_forgot_on_the_device_answers_alike_on_the_cpu(
    name, on_device, adapter_run, tmp_path
):
    method, preset, settings = METHODS[name]
    run = unlearn(adapter_run, tmp_path / "run", build(method, settings, preset), REQUEST)
    results = json.loads((run.path / "results.json").read_text())
    figures = [interval["value"] for interval in results["forget_set"]["unlearned"].values()]
    assert figures
    assert np.isfinite(figures).all()
    assert (results["peak_gpu_bytes"] > 0) == (on_device.type != "cpu")
    check_scores_on_both_devices(run, on_device, prompts(tmp_path))


def test_full_model_forgets_and_is_measured_on_the_device(on_device, full_run, tmp_path):
    check_scores_on_both_devices(full_run, on_device, prompts(tmp_path))
    settings = {"lora": UPPER, "min_steps": 4}
    run = unlearn(full_run, tmp_path / "run", build("e2urec", settings), REQUEST)
    other = unlearn(full_run, tmp_path / "other", build("retrain"), REQUEST)
    check_scores_on_both_devices(run, on_device, prompts(tmp_path))
    results = evaluate(run, [other], REQUEST).as_dict()
    with running_on(CPU):
        on_cpu = evaluate(run, [other], REQUEST).as_dict()
    assert results["verdict"]["unlearned"] == on_cpu["verdict"]["unlearned"]
    for role, row in results["utility"].items():
        # The placebo is tuned anew.
        tolerance = 0.02 if role == "placebo-retain" else 1e-3
        for name, interval in row.items():
            expected = on_cpu["utility"][role][name]["value"]
            assert interval["value"] == pytest.approx(expected, abs=tolerance), (role, name)


def test_same_weights_give_log_odds_within_a_thousandth_of_the_cpus(on_device, full_run):
    odds = []
    for place in (on_device, CPU):
        with running_on(place):
            space = Workspace(Recipe.build(full_run.record.recipe, place="run"))
            model = space.load(full_run)
            space.prompt_reader = model.prompt_reader
            assert model.device.type == place.type
            rows = space.encode(space.split.test)
            odds.append(predict(model, rows, precision="fp32", states=True))
    np.testing.assert_allclose(odds[0].log_odds, odds[1].log_odds, atol=1e-3)
    np.testing.assert_allclose(odds[0].hidden, odds[1].hidden, atol=1e-3)


class Killed(BaseException):
    """Stands for a signal that no code sees."""


def killed_after(steps: int):
    """A listener that ends everything after so many steps."""
    seen = []

    def listen(phase: str, done: int, total: int, loss: float | None = None) -> None:
        seen.append(done)
        if len(seen) > steps:
            raise Killed

    return listen


def adapter_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def test_training_that_was_killed_goes_on_and_ends_as_one_that_was_not(
    on_device, recipe, adapter_run, tmp_path
):
    with pytest.raises(Killed):
        train(
            recipe.updated(ADAPTER),
            tmp_path / "run",
            progress=killed_after(12),
            checkpoints=CheckpointOptions(1e-9),
        )
    lines: list[str] = []
    resumed = CheckpointOptions(1e-9, resume=True, say=lines.append)
    run = train(recipe.updated(ADAPTER), tmp_path / "run", checkpoints=resumed)
    assert any("goes on with" in line for line in lines)
    torch.testing.assert_close(
        adapter_weights(run.path), adapter_weights(adapter_run.path), atol=1e-4, rtol=1e-3
    )
