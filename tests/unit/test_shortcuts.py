"""What is checked when a model is loaded: a shortcut that does not hold is not taken."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from e2urec.core.errors import ModelError
from e2urec.data.prompts import TEMPLATES
from e2urec.data.splits import SplitSettings, split
from e2urec.models import adapters, blocks
from e2urec.models.activation_cache import open_cache
from e2urec.models.adapters import LoRA
from e2urec.models.backbone import Backbone
from e2urec.models.recommender import Recommender
from e2urec.models.verbaliser import Verbaliser
from e2urec.testing import toy_backbone, toy_interactions
from families import FAMILIES, Family, build

UPPER = LoRA(rank=2, targets="all", upper=0.5)


@pytest.fixture
def samples():
    return split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1).train


def named(name: str) -> Family:
    (family,) = [family for family in FAMILIES if family.name == name]
    return family


def recommender(backbone: Backbone) -> Recommender:
    return Recommender(backbone, TEMPLATES["compact"])


def test_last_block_that_mixes_positions_late_computes_all_of_them_and_says_so(samples):
    backbone = toy_backbone("causal")
    feed_forward = blocks.stack(backbone.lm)[-1].mlp
    # Its output at a position then depends on those before.
    feed_forward.register_forward_hook(lambda module, inputs, output: output.cumsum(1))
    with pytest.warns(UserWarning, match="computes all of them, which is slower"):
        model = recommender(backbone)
    assert not model.answer_only
    batch = model.collate(model.encode(samples), np.arange(4))
    with model.using(), torch.no_grad():
        assert torch.allclose(model.logits(batch), model.plain_logits(batch), atol=1e-6)


def test_model_that_changes_its_logits_as_its_config_does_not_tell_is_refused():
    backbone = toy_backbone("causal")
    head = backbone.lm.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(ModelError, match="otherwise than by the cap or scale in its config"):
        recommender(backbone)


def test_model_that_answers_no_prompt_is_refused_in_one_line():
    # It has the tokens of the answers, but not those of prompts.
    backbone = replace(toy_backbone("causal"), verbaliser=Verbaliser(0, 1))
    backbone.lm.resize_token_embeddings(3)
    with pytest.raises(ModelError, match="answers no prompt") as refusal:
        recommender(backbone)
    assert "\n" not in str(refusal.value)


def test_encoder_decoder_whose_decoder_has_no_start_is_refused():
    backbone = toy_backbone("seq2seq")
    backbone.lm.config.decoder_start_token_id = None
    with pytest.raises(ModelError, match=r"set it in its config\.json"):
        recommender(backbone)


def test_blocks_that_read_keys_of_lower_ones_are_not_given_cached_states_and_it_is_said():
    model = recommender(build(named("Gemma 4 (text, values shared by blocks)")))
    cache = open_cache(model, 2, precision="fp32", max_gb=1, folder=None)
    with pytest.warns(UserWarning, match="read more of the lower ones"), cache as opened:
        assert opened is None


def test_cache_opens_without_a_word_where_states_are_enough(recwarn):
    model = recommender(toy_backbone("causal"))
    with open_cache(model, 1, precision="fp32", max_gb=1, folder=None) as cache:
        assert cache is not None
    assert not [warning for warning in recwarn if "e2urec" in warning.filename]


@pytest.mark.parametrize("name", ["DeepSeek V3", "Qwen 3 Next"])
def test_shared_experts_get_no_adapter_and_it_is_said(name):
    lm = build(named(name)).lm
    lower_blocks = [*blocks.stack(lm)[:2]]
    with pytest.warns(UserWarning, match="no adapter of PEFT works on 6 of its"):
        lm = adapters.attach(lm, "student", UPPER, seed=0)
    assert adapters.weights(lm, "student")
    assert not [key for block in lower_blocks for key in block.state_dict() if "lora_" in key]


def test_adapter_that_peft_puts_elsewhere_is_refused(monkeypatch):
    lm = build(named("DeepSeek V3")).lm
    monkeypatch.setattr("e2urec.models.adapted_layers._adaptable", lambda lm, names, family: names)
    with pytest.raises(ModelError, match=r"other layers.*set lora\.targets=attention"):
        adapters.attach(lm, "student", UPPER, seed=0)


def test_what_reads_pictures_gets_no_adapter():
    lm = build(named("Gemma 3 (from 4B)")).lm
    lm = adapters.attach(lm, "student", LoRA(rank=2, targets="all"), seed=0)
    keys = list(adapters.weights(lm, "student"))
    assert keys
    assert all("language_model.layers" in key for key in keys)


def test_upper_blocks_without_such_layers_are_refused():
    lm = build(named("Granite 4 (hybrid)")).lm
    # The uppermost block alone, which is one of Mamba's once the last two change places.
    stack = blocks.stack(lm)
    stack[-1] = stack[0]
    lora = LoRA(rank=2, targets="attention", upper=0.25)
    with pytest.raises(ModelError, match=r"raise lora\.upper"):
        adapters.attach(lm, "student", lora, seed=0)


def test_nothing_is_said_of_a_model_whose_layers_all_get_an_adapter():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        adapters.attach(toy_backbone("causal").lm, "student", UPPER, seed=0)
