"""An adapter aimed at a gradient: by hand on one layer, against a full decomposition on models."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from e2urec.data.prompts import TEMPLATES
from e2urec.methods.ifru import IFRU
from e2urec.models import adapters
from e2urec.models.adapter_algebra import adapted_weights
from e2urec.models.adapters import LoRA
from e2urec.models.backbone import Backbone
from e2urec.models.batches import Batch
from e2urec.models.recommender import Recommender
from e2urec.testing import toy_backbone, toy_task
from e2urec.testing.models import toy_tokenizer
from e2urec.unlearning.gradient_subspace import aim_at_gradient, leading_directions, summed_loss

RANK = 2
SCALE = 2.0
LORA = LoRA(rank=RANK, alpha=SCALE * RANK, targets="all")
KINDS = ["causal", "seq2seq", "conv1d", "on-lora"]


def gpt2() -> Backbone:
    """A toy of the one architecture whose layers keep their weights transposed."""
    torch.manual_seed(0)
    tokenizer = toy_tokenizer(closes=False)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2, n_inner=48
    )
    lm = GPT2LMHeadModel(config)
    lm.set_attn_implementation("eager")
    return Backbone(lm.eval(), tokenizer, "toy-gpt2")


def student(kind: str) -> tuple[Recommender, list[Batch]]:
    """A recommender with a fresh adapter `student` on all layers, and two batches of its rows."""
    backbone = (
        gpt2() if kind == "conv1d" else toy_backbone("seq2seq" if kind == "seq2seq" else "causal")
    )
    lm, active = backbone.lm, ("student",)
    if kind == "on-lora":
        lm, active = adapters.attach(lm, "original", LoRA(rank=3), seed=7), ("original", "student")
        for parameter in adapters.up_projections(lm, "original"):
            parameter.data.normal_(std=0.1)
    lm = adapters.attach(lm, "student", LORA, seed=0)
    adapted = Backbone(lm, backbone.tokenizer, backbone.name)
    model = Recommender(adapted, TEMPLATES["compact"], active=active, window=64)
    rows = model.encode_texts(["Liked: Movie 1. Movie 2?", "Disliked: none. Movie?", "Heat?"])
    return model, [model.collate(rows, np.array(index)) for index in ([0, 1], [2])]


def whole_gradients(model: Recommender, batches: list[Batch]) -> list[torch.Tensor]:
    """The gradient of each adapted weight, (out, in), by another way than the code's."""
    targets = adapted_weights(model.lm, "student")
    for target in targets:
        target.weight.requires_grad_(True)
    loss = sum(summed_loss(model, batch) for batch in batches)
    gradients = torch.autograd.grad(loss, [target.weight for target in targets])
    for target in targets:
        target.weight.requires_grad_(False)
    return [g.T if t.transposed else g for g, t in zip(gradients, targets, strict=True)]


def up_gradients(model: Recommender, batches: list[Batch]) -> list[torch.Tensor]:
    parameters = adapters.up_projections(model.lm, "student")
    for parameter in parameters:
        parameter.requires_grad_(True)
    loss = sum(summed_loss(model, batch) for batch in batches)
    return list(torch.autograd.grad(loss, parameters))


def test_direction_of_one_layer_and_one_row_is_the_input_of_the_row():
    """loss = δ·(W·x) has the gradient δxᵀ: with x = (3, 4) all of it lies along (0.6, 0.8)."""
    layer = torch.nn.Linear(2, 3, bias=False)
    x, slope = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0, 2.0])
    (gradient,) = torch.autograd.grad(slope @ layer(x), layer.weight)
    a = leading_directions(gradient, 1, seed=0)
    assert torch.allclose(a.abs(), torch.tensor([[0.6, 0.8]]), atol=1e-6)
    # ‖δ‖·‖x‖ = 3·5 in this direction, and 3·3 along the first axis.
    assert (gradient @ a.T).norm().item() == pytest.approx(15)
    assert (gradient @ torch.tensor([[1.0], [0.0]])).norm().item() == pytest.approx(9)


def test_directions_come_in_the_order_of_the_singular_values():
    """G = 3·u₁v₁ᵀ + 1·u₂v₂ᵀ with v₁ = (0.6, 0.8, 0) and v₂ = (−0.8, 0.6, 0)."""
    v = torch.tensor([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0]])
    gradient = torch.tensor([[0.0, 1.0], [3.0, 0.0]]) @ v
    a = leading_directions(gradient, 2, seed=0)
    assert torch.allclose((a @ v.T).abs(), torch.eye(2), atol=1e-6)


def test_rows_that_a_narrow_matrix_cannot_fill_are_zero():
    a = leading_directions(torch.tensor([[2.0, 0.0, 0.0]]), 3, seed=0)
    assert torch.allclose(a.abs(), torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]]))


def test_directions_do_not_depend_on_the_seed_nor_move_the_global_stream():
    matrix = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    matrix = matrix @ torch.diag(0.6 ** torch.arange(30))
    before = torch.random.get_rng_state()
    first, again, other = (leading_directions(matrix, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert torch.allclose((first @ other.T).abs(), torch.eye(4), atol=1e-5)
    _, _, vectors = np.linalg.svd(matrix.numpy())
    assert np.allclose(np.abs(first.numpy() @ vectors[:4].T), np.eye(4), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_b_is_as_long_as_the_leading_singular_values_allow(kind):
    """‖∂loss/∂B‖² = s²·(σ₁² + … + σ_r²) in every layer, and less in a random subspace."""
    model, batches = student(kind)
    with model.using():
        gradients = whole_gradients(model, batches)
        random = up_gradients(model, batches)
        for target in adapted_weights(model.lm, "student"):
            # PEFT's random A has shorter rows: of equal length they compare directions alone.
            rows = torch.linalg.qr(target.down.T).Q.T
            target.down.data.copy_(rows)
        orthonormal = up_gradients(model, batches)
        for parameter in adapters.up_projections(model.lm, "student"):
            parameter.requires_grad_(False)
        aim_at_gradient(model, "student", batches, seed=3)
        aimed = up_gradients(model, batches)
    assert len(gradients) == len(aimed) == len(random)
    for gradient, length, drawn in zip(gradients, aimed, orthonormal, strict=True):
        values = np.linalg.svd(gradient.numpy(), compute_uv=False)
        most = SCALE * np.sqrt((values[:RANK] ** 2).sum())
        assert length.norm().item() == pytest.approx(most, rel=1e-3, abs=1e-7)
        # With one position to attend to, T5's decoder has queries and keys without a gradient.
        if most > 1e-7:
            assert drawn.norm() < 0.9 * most


@pytest.mark.parametrize("kind", KINDS)
def test_aiming_changes_a_alone_and_leaves_no_gradient_behind(kind):
    model, batches = student(kind)
    before = {name: value.clone() for name, value in model.lm.state_dict().items()}
    with model.using():
        aim_at_gradient(model, "student", batches, seed=3)
        assert all(parameter.grad is None for parameter in model.lm.parameters())
        assert not any(parameter.requires_grad for parameter in model.lm.parameters())
    after = model.lm.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {name for name in before if "lora_A.student." in name}


def test_interrupt_while_aiming_leaves_the_weights_frozen():
    model, batches = student("causal")
    with model.using():
        with pytest.raises(AttributeError):
            aim_at_gradient(model, "student", [batches[0], None], seed=3)
        assert all(parameter.grad is None for parameter in model.lm.parameters())
        assert not any(parameter.requires_grad for parameter in model.lm.parameters())


def test_influence_step_aims_at_the_gradient_unless_told_to_draw_a_subspace():
    lora = LoRA(rank=2, alpha=4, targets="all")
    settings = {"lora": lora, "rows": 12, "iterations": 2, "batch_size": 12}
    scores = {}
    for subspace in ("gradient", "random"):
        task = toy_task("causal")
        method = IFRU(**settings, subspace=subspace)
        scores[subspace] = method.unlearn(task).score(task.forget)
        planned = method.plan(len(task.forget), len(task.retain), task.tuning.schedule)
        assert ("subspace" in planned) == (subspace == "gradient")
        assert task.costs.rows.get("subspace", 0) == planned.get("subspace", 0)
    default = IFRU(**settings)
    task = toy_task("causal")
    assert np.array_equal(default.unlearn(task).score(task.forget), scores["gradient"])
    assert not np.array_equal(scores["gradient"], scores["random"])
