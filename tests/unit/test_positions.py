"""The window of a model whose positions end."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from e2urec.core.errors import ModelError
from e2urec.data.prompts import TEMPLATES
from e2urec.models.batches import pack
from e2urec.models.positions import position_count
from e2urec.models.recommender import Recommender
from families import FAMILIES, Family, build

TABLED = ["GPT-2", "GPT-J", "GPT-Neo", "OPT", "MPT", "BART", "Pegasus"]
POSITIONS = 40


def with_positions(name: str, positions: int) -> Family:
    (family,) = [family for family in FAMILIES if family.name == name]
    names = ("n_positions", "max_position_embeddings", "max_seq_len")
    config = {key: value for key, value in family.config.items() if key not in names}
    key = {"GPT-2": "n_positions", "GPT-J": "n_positions", "MPT": "max_seq_len"}.get(name, names[1])
    return replace(family, config=config | {key: positions})


@pytest.mark.parametrize("name", TABLED)
def test_longest_window_of_a_table_of_positions_is_answered_and_a_longer_one_refused(name):
    backbone = build(with_positions(name, POSITIONS))
    assert position_count(backbone.lm) == POSITIONS
    model = Recommender(backbone, TEMPLATES["compact"], window=POSITIONS)
    zeros = np.zeros(1, np.int8)
    rows = pack([[5] * 60], zeros, zeros, window=POSITIONS)
    with model.using(), torch.no_grad():
        assert model.logits(model.collate(rows, np.arange(1))).isfinite().all()
    with pytest.raises(ModelError, match=r"has 40 positions, and model\.window is 41; set it to"):
        Recommender(backbone, TEMPLATES["compact"], window=POSITIONS + 1)


def test_positions_that_do_not_fill_a_batch_are_left_out():
    backbone = build(with_positions("GPT-2", 45))
    with pytest.raises(ModelError, match="set it to 40 or less"):
        Recommender(backbone, TEMPLATES["compact"], window=44)


@pytest.mark.parametrize("name", ["Llama", "Falcon RW", "BLOOM", "T5", "Mamba"])
def test_model_that_computes_its_positions_takes_any_window(name):
    (family,) = [family for family in FAMILIES if family.name == name]
    assert position_count(build(family).lm) is None
