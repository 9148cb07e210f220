"""The presets of E2URec, and which settings a search tries."""

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "scores": {"forgetting": "scores"},
    # The paper's own teacher, as it works best: docs/evidence/log.md has the trials.
    "gain": {
        "forgetting": "gain",
        "start_scale": 2.0,
        "joint": 0.5,
        "beta": 0.8,
        "learning_rate": 1e-3,
        "batch_size": 16,
        "lora": {"targets": "attention", "upper": 0.5},
        "scaling": {"max_valid_drop": 0.01},
    },
    # The settings of the released code; docs/evidence/parity.md has what else differs.
    "paper": {
        "forgetting": "gain",
        "alpha": 2.0,
        "teacher": "raw",
        "augment": "full",
        "augment_passes": 1.48,
        "augment_rate": 5e-5,
        "warmup": 1.0,
        "joint": 0.232,
        "final": 0.0,
        "beta": 0.4,
        "learning_rate": 1e-3,
        "batch_size": 16,
        "scaling": {"largest": 0.0},
        "remember": "kl+ce",
        "min_lr_ratio": 1.0,
        "min_steps": 1,
        "augment_min_steps": 1,
        "lora": {"rank": 16, "alpha": 32, "dropout": 0.05, "targets": "attention"},
        "optimizer": {"warmup": 0.0, "weight_decay": 0.01, "clip": None},
    },
}

SEARCH: Mapping[str, tuple[Any, ...]] = {
    "start_scale": (1.0, 2.0, 3.0, 4.0),
    "joint": (0.25, 0.5, 1.0),
    "beta": (0.6, 0.8, 0.9),
    "augment_passes": (1.0, 2.0, 3.0),
}
# The same without an augmented model: of a student that is trained, and of one that is solved for.
SEARCH_TRAINED: Mapping[str, tuple[Any, ...]] = {
    "strength": (8.0, 16.0, 24.0),
    "joint": (1.0, 2.0, 4.0),
    "beta": (0.2, 0.3, 0.5),
}
SEARCH_SOLVED: Mapping[str, tuple[Any, ...]] = {
    "beta": (0.2, 0.3, 0.5),
    "solving": tuple(
        {"damping": damping, "strength": strength}
        for damping in (0.02, 0.05, 0.1)
        for strength in (0.8, 1.0, 1.25)
    ),
}
