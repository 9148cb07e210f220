"""Where the tests of this folder run."""

import contextlib
import os
from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from e2urec.models import backbone, devices
from e2urec.training import loop

DEVICE = os.environ.get("E2UREC_TEST_DEVICE", "cuda")
CPU = torch.device("cpu")


@contextlib.contextmanager
def running_on(device: torch.device) -> Iterator[None]:
    """Inside, models are loaded to `device` and trained there."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (devices, backbone, loop):
            patch.setattr(module, "default_device", lambda: device)
        _forget_device()
        yield
    _forget_device()


def _forget_device() -> None:
    """Make Accelerate find out anew where this process computes."""
    GradientState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=True)
