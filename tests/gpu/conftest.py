"""Tests of what runs on a GPU: `make gpu`.

Without one they are skipped. `E2UREC_TEST_DEVICE=cpu` runs them on the CPU, which shows that the
tests themselves are sound.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gpu_device import CPU, DEVICE, running_on

from e2urec.experiments.recipe import Recipe
from toy_data import quick_settings, write_ratings


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU; the CPU where the environment says so."""
    if DEVICE == "cpu":
        return CPU
    if not torch.cuda.is_available():
        pytest.skip("no GPU is here; E2UREC_TEST_DEVICE=cpu runs these tests on the CPU")
    return torch.device(DEVICE, 0)


@pytest.fixture
def on_device(device: torch.device) -> Iterator[torch.device]:
    """The device, and all that the test does runs there."""
    with running_on(device):
        yield device


@pytest.fixture
def on_gpu(on_device: torch.device) -> torch.device:
    """As `on_device`, for what only a GPU can show."""
    if on_device.type == "cpu":
        pytest.skip("only a GPU counts the memory of its tensors")
    return on_device


@pytest.fixture(scope="session")
def recipe(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    source = write_ratings(tmp_path_factory.mktemp("data"))
    return Recipe.build({}, place="test").updated(quick_settings(source, toy))
