"""What every family of models owes: each shortcut gives what the plain forward pass gives."""

import warnings

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from peft import PeftModel
from torch.nn import functional as F

from e2urec.core.errors import ModelError
from e2urec.data.prompts import TEMPLATES
from e2urec.data.splits import SplitSettings, split
from e2urec.models import adapter_algebra, adapters
from e2urec.models.activation_cache import open_cache
from e2urec.models.adapters import LoRA
from e2urec.models.backbone import Backbone
from e2urec.models.batches import Batch
from e2urec.models.precision import autocast
from e2urec.models.predictions import answer_states
from e2urec.models.recommender import Recommender
from e2urec.models.stored_weights import keep_stored
from e2urec.testing import toy_interactions
from e2urec.training.loop import Phase, Schedule
from e2urec.training.supervised import Tuning, tune
from families import BLOCKS, FAMILIES, Family, build

ROWS = np.arange(8)
TUNING = Tuning(
    lora=LoRA(rank=2, targets="all"),
    schedule=Schedule(epochs=2, learning_rate=3e-3, batch_size=8, precision="fp32"),
)


@pytest.fixture(scope="module")
def samples():
    return split(toy_interactions(), SplitSettings(history=3, calibration=0), seed=1).train.take(
        ROWS
    )


def params_of(families: list[Family]) -> list[ParameterSet]:
    """The families as parameters of a test; `make families` runs those that are not ordinary."""
    rarer = pytest.mark.families
    return [
        pytest.param(family, id=family.name, marks=() if family.ordinary else rarer)
        for family in families
    ]


@pytest.fixture(params=params_of(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


def lora_of(targets: str) -> LoRA:
    return LoRA(rank=2, targets=targets, upper=0.5)


def student_on(model: Recommender, lora: LoRA) -> None:
    """Put an adapter `student` on the model; it changes nothing at first."""
    with warnings.catch_warnings():
        # PEFT's own, of layers that it knows no adapter for: another test's matter.
        warnings.simplefilter("ignore")
        model.lm = adapters.attach(model.lm, "student", lora, seed=0)
    model.active = ("student",)


def disturb(model: Recommender) -> None:
    with model.using(train="student") as parameters, torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.1)


def plain(model: Recommender, batch: Batch) -> torch.Tensor:
    """Answer-position logits, as somebody who knows nothing of this package would ask for them."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    if model.seq2seq:
        start = model.lm.config.decoder_start_token_id
        target = model.tokenizer(text_target="Yes").input_ids
        before = target[: target.index(model.verbaliser.yes)]
        inputs["decoder_input_ids"] = torch.tensor([[start, *before]] * len(batch.ids))
        return model.lm(**inputs).logits[:, -1]
    rows = torch.arange(len(batch.ids))
    return model.lm(**inputs).logits[rows, batch.position]


def gradients(model: Recommender, logits_of, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the gradient of a loss in the student's matrices, one after another."""
    with model.using(train="student") as parameters:
        z = logits_of(batch)
        loss = F.cross_entropy(z, model.verbaliser.tokens(batch.labels))
        parts = torch.autograd.grad(loss, parameters)
        return z.detach(), torch.cat([part.flatten() for part in parts])


def same(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> None:
    """Check that the tensors agree to four digits of the largest number in each."""
    for one, other in zip(first, second, strict=True):
        size = other.abs().max()
        torch.testing.assert_close(one / size, other / size, atol=1e-4, rtol=0)


def test_scores_are_those_of_the_plain_forward_pass(family, samples):
    model = Recommender(build(family), TEMPLATES["compact"])
    examples = model.encode(samples)
    verbaliser = model.verbaliser
    with torch.no_grad():
        # Each row by itself, so that nothing depends on padding either.
        rows = [plain(model, model.collate(examples, ROWS[[row]])) for row in ROWS]
        logits = torch.cat(rows)
        pair = logits[:, [verbaliser.yes, verbaliser.no]]
        states = answer_states(model, examples, precision="fp32")
    # A model that says the same to everybody would show nothing.
    assert pair.diff().std() > 0.001
    torch.testing.assert_close(torch.from_numpy(model.score(samples)), pair.softmax(1)[:, 0])
    same((model.to_logits(states),), (logits,))
    same((verbaliser.log_odds_of(states, model.head),), (-pair.diff()[:, 0],))


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_student_learns_the_same_by_each_shortcut(family, targets, samples):
    if targets == "attention" and not family.attention:
        pytest.skip("has no attention: see test_family_without_attention_is_told_what_to_set")
    model = Recommender(build(family), TEMPLATES["compact"])
    lora = lora_of(targets)
    first_block = lora.first_block(model.lm)
    assert first_block == BLOCKS // 2
    examples = model.encode(samples)
    with open_cache(model, first_block, precision="fp32", max_gb=1, folder=None) as cache:
        # As in unlearning: what is cached was computed before there was a student.
        assert (cache is not None) == family.replay
        cached = examples if cache is None else cache.attach_states(examples, ROWS)
        student_on(model, lora)
        disturb(model)
        batch = model.collate(examples, ROWS)
        expected = gradients(model, lambda batch: plain(model, batch), batch)

        same(gradients(model, model.logits, batch), expected)
        same(gradients(model, model.logits, model.collate(cached, ROWS)), expected)
        model.answer_only = False
        same(gradients(model, model.logits, batch), expected)


def test_tuning_moves_the_adapter_alone_and_what_is_saved_scores_the_same(
    family, samples, tmp_path
):
    base = build(family)
    untuned = Recommender(base, TEMPLATES["compact"])
    examples = untuned.encode(samples)
    before = untuned.score(samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned, _ = tune(untuned, TUNING, examples, None, Phase("original", 0))
    scores = tuned.score(samples)
    assert np.abs(scores - before).max() > 1e-4
    assert np.array_equal(untuned.score(samples), before)
    with tuned.using(()), torch.no_grad():
        batch = tuned.collate(examples, ROWS)
        same((plain(tuned, batch),), (plain(untuned, batch),))

    tuned.save(tmp_path)
    loaded = Recommender.load(tmp_path, base=build(family))
    assert np.array_equal(loaded.score(samples), scores)
    with tuned.using(), torch.no_grad():
        expected = plain(tuned, batch)
    untuned.lm = PeftModel.from_pretrained(base.lm, tmp_path / "adapter")
    with torch.no_grad():
        same((plain(untuned, batch),), (expected,))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_base_held_in_bf16_teaches_a_student_what_its_float32_copy_teaches(
    family, precision, samples
):
    results = []
    for hold in (keep_stored, lambda lm: lm.float().requires_grad_(False)):
        backbone = build(family)
        for parameter in backbone.lm.parameters():
            parameter.data = parameter.data.bfloat16()
        with warnings.catch_warnings():
            # Some families read most of their weights themselves, and are told so.
            warnings.simplefilter("ignore")
            hold(backbone.lm)
        model = Recommender(backbone, TEMPLATES["compact"])
        student_on(model, lora_of("all"))
        torch.manual_seed(0)
        disturb(model)
        batch = model.collate(model.encode(samples), ROWS)
        with autocast(precision, model.device):
            results.append(gradients(model, model.logits, batch))
    same(*results)


def test_merged_model_is_saved_and_scores_the_same(family, samples, tmp_path):
    model = Recommender(build(family), TEMPLATES["compact"])
    student_on(model, lora_of("all"))
    disturb(model)
    batch = model.collate(model.encode(samples), ROWS)
    with model.using(), torch.no_grad():
        expected = plain(model, batch)
    merged_lm = adapter_algebra.merge(model.lm, ["student"])
    merged = Recommender(Backbone(merged_lm, model.tokenizer, family.name), model.template)
    with torch.no_grad():
        same((plain(merged, batch),), (expected,))
    merged.save(tmp_path)
    loaded = Recommender.load(tmp_path)
    # Qwen's own class of tokenizers, which is chosen by the type of the model, splits the texts of
    # toys otherwise.
    loaded.tokenizer = model.tokenizer
    assert np.array_equal(loaded.score(samples), merged.score(samples))


@pytest.mark.parametrize(
    "family", params_of([family for family in FAMILIES if not family.attention])
)
def test_family_without_attention_is_told_what_to_set(family):
    lm = build(family).lm
    with pytest.raises(ModelError, match=r"set lora\.targets=all"):
        adapters.attach(lm, "student", lora_of("attention"), seed=0)
