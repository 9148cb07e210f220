"""Two CPU processes take the same steps as one, share the rest, and leave the same folders."""

import json

import pytest

from toy_data import quick_settings, write_ratings
from two_processes import COMMANDS, PROCESSES, check_same_runs, commands_to, fork_script

FILES = {
    "whole": "model/model.safetensors",
    "split": "adapter/adapter_model.safetensors",
}


# In the same two processes as the commands, since what takes long is that they start.
GRADIENTS = """
import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import torch
from e2urec.core.process import rank
from e2urec.data.prompts import TEMPLATES
from e2urec.data.splits import SplitSettings, split
from e2urec.models import adapters
from e2urec.models.adapters import LoRA
from e2urec.models.recommender import Recommender
from e2urec.testing import toy_backbone, toy_interactions
from e2urec.training.loop import Objective, Phase, Schedule, TrainingState, fit
from e2urec.training.micro_batches import StepGradients
from e2urec.training.process_share import ProcessShare
from e2urec.training.supervised import supervised

alone = SimpleNamespace(
    num_processes=1,
    process_index=0,
    backward=torch.Tensor.backward,
    unwrap_model=lambda model: model,
    no_sync=lambda model: contextlib.nullcontext(),
)

class First(TrainingState):
    def advance(self, losses, step):
        self.loss = sum(float(loss) for loss in losses.values())
        self.gradient = flat(self.parameters)
        super().advance(losses, step)

def flat(parameters):
    return torch.cat([parameter.grad.flatten() for parameter in parameters])

def adapted(kind):
    model = Recommender(toy_backbone(kind), TEMPLATES["compact"], active=())
    model.lm = adapters.attach(model.lm, "student", LoRA(rank=2, targets="all"), seed=0)
    model.active = ("student",)
    torch.manual_seed(0)
    with model.using(train="student") as parameters, torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.2)
    return model

def compare(kind, step, **settings):
    model = adapted(kind)
    samples = split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1).train
    rows = model.encode(samples)
    objectives = [supervised(model, rows, name) for name in step]

    def losses(wrapped, step):
        named = {}
        for name, objective in zip(step, objectives):
            named |= objective.losses(wrapped, {name: step[name]})
        return named

    objective = Objective(losses, weights={"retain": 0.3})
    schedule = Schedule(epochs=1, **settings)
    with model.using(train="student") as parameters:
        state = First.start(parameters, schedule)
        loss, _ = StepGradients(model, objective, state, alone, "t").leave(
            ProcessShare.of(step, alone)
        )
        one = flat(parameters)
        state.optimizer.zero_grad()
        fit(model, state, lambda epoch: [step], objective, Phase("t", 0))
    error = float((state.gradient - one).norm() / one.norm())
    return {"kind": kind, "rows": list(map(len, step.values())), "error": error} | settings

compared = []
for kind in ("causal", "seq2seq"):
    for sizes in ((16,), (15,), (13, 1)):
        step = dict(zip(("forget", "retain"), map(np.arange, sizes)))
        for size in (None, 3):
            compared.append(compare(kind, step, precision="fp32", micro_batch=size))
    compared.append(compare(kind, {"forget": np.arange(16)}, precision="bf16"))
seen = {"compared": compared, "loads_pytest": "pytest" in sys.modules}
Path(__file__).with_name(f"seen.{rank()}").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def one_process(toy, tmp_path_factory):
    """Settings of a fully tuned model, and of an adapter on a base that one process has whole."""
    settings = quick_settings(write_ratings(tmp_path_factory.mktemp("ratings")), toy)
    return {"whole": settings, "split": [*settings, "tuning.lora.rank=4"]}


@pytest.fixture(scope="module")
def launched(one_process, tmp_path_factory):
    """All that two processes do, by the same two."""
    folder = tmp_path_factory.mktemp("two")
    commands = commands_to(folder / "whole", one_process["whole"])
    commands += commands_to(folder / "split", [*one_process["split"], "model.fsdp=true"])
    done = fork_script(folder, GRADIENTS + COMMANDS, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    # A long name of a folder has the line broken.
    text = " ".join(done.stdout.split())
    assert text.count("seed 0") == len(commands), "one process speaks"
    return folder


@pytest.mark.parametrize("kind", ["whole", "split"])
def test_two_processes_train_and_unlearn_as_one_does(call, one_process, launched, tmp_path, kind):
    for words in commands_to(tmp_path, one_process[kind]):
        status, _, error = call(*words)
        assert status == 0, error
    check_same_runs(tmp_path, launched / kind, FILES[kind])
    left = sorted(path.name for path in (launched / kind).iterdir())
    assert left == ["original", "unlearned"]


def seen_by(launched, rank):
    return json.loads((launched / f"seen.{rank}").read_text())


@pytest.mark.parametrize("rank", range(PROCESSES))
def test_gradient_of_two_processes_is_that_of_one(launched, rank):
    compared = seen_by(launched, rank)["compared"]
    assert len(compared) == 14
    for each in compared:
        if each["precision"] == "fp32":
            assert each["error"] < 1e-5, each
        else:
            # Each process rounds its sums over rows to the eight digits of bf16.
            assert 1e-5 < each["error"] < 1e-2, each


def test_toys_need_no_test_framework(launched):
    # The processes imported them, and nothing of the tests.
    assert seen_by(launched, 0)["loads_pytest"] is False
