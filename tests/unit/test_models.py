import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.lora import LoraLayer

from e2urec.core.errors import ModelError, RunError
from e2urec.core.seeding import derive, stream
from e2urec.data.prompts import TEMPLATES, PromptTemplate
from e2urec.data.samples import Samples
from e2urec.models import adapter_algebra, adapters, tokens
from e2urec.models.adapters import LoRA
from e2urec.models.backbone import load_backbone
from e2urec.models.batches import batches_by_length, endless_batches, epoch_batches, join_batches
from e2urec.models.recommender import Recommender
from e2urec.models.verbaliser import Verbaliser, find_verbaliser
from e2urec.testing import toy_backbone, toy_interactions, toy_tokenizer


@pytest.fixture
def samples() -> Samples:
    return Samples(toy_interactions(), np.arange(20, 60), history=4)


def test_streams_differ_by_name_and_not_by_what_ran_before():
    a = stream(1, "pairs").random()
    stream(1, "other").random()
    assert stream(1, "pairs").random() == a
    assert derive(1, "a", 2) != derive(1, "a", 3) != derive(2, "a", 3)


def test_verbaliser_is_the_answer_in_its_context():
    tokenizer = toy_tokenizer(closes=False)
    verbaliser = find_verbaliser(tokenizer, ["Will the user like Movie?"], seq2seq=False)
    assert tokenizer.decode([verbaliser.yes]).startswith(" Y")
    assert tokenizer.decode([verbaliser.no]).startswith(" N")


def test_tokenizer_whose_answers_share_their_first_token_is_refused():
    with pytest.raises(ModelError, match="share their first token"):
        find_verbaliser(_Letters([1]), ["Movie?"], seq2seq=False)


def test_what_every_target_begins_with_goes_before_the_answer():
    verbaliser = find_verbaliser(_Letters([7, 8]), ["Movie?"], seq2seq=True)
    assert verbaliser == Verbaliser(ord("Y"), ord("N"), prefix=(7, 8))


def test_tokenizer_that_writes_both_targets_alike_is_refused():
    with pytest.raises(ModelError, match="the same tokens"):
        find_verbaliser(_Letters([7], letters=0), ["Movie?"], seq2seq=True)


class _Letters:
    """Begins every target as it is told, and gives each letter a token, the space as well."""

    name_or_path = "letters"
    eos_token = None
    eos_token_id = 2

    def __init__(self, prefix, letters=None):
        self.prefix = prefix
        self.letters = letters

    def __call__(self, texts=(), text_target="", **options):
        target = [*self.prefix, *map(ord, text_target[: self.letters])]
        rows = [list(map(ord, text)) for text in texts]
        return SimpleNamespace(input_ids=target if text_target else rows)


def test_score_does_not_depend_on_batch_neighbours(recommender, samples):
    alone = np.concatenate(
        [recommender.score(samples.take(np.array([k]))) for k in range(len(samples))]
    )
    together = recommender.score(samples, batch_size=16)
    assert np.abs(alone - together).max() <= 1e-5


def test_score_is_the_share_of_yes_among_the_answers_of_the_whole_model(recommender, samples):
    examples = recommender.encode(samples)
    batch = recommender.collate(examples, np.array([3]))
    inputs = {
        "input_ids": batch.ids[:, : examples.lengths[3]]
    }  # as a stranger would ask: no padding, no mask
    if recommender.seq2seq:
        inputs["decoder_input_ids"] = torch.zeros((1, 1), dtype=torch.long)
    with torch.no_grad():
        logits = recommender.lm(**inputs).logits[0, -1]
    pair = logits[[recommender.verbaliser.yes, recommender.verbaliser.no]].softmax(0)
    assert recommender.score(samples)[3] == pytest.approx(pair[0].item(), abs=1e-5)


def test_saved_model_loads_with_transformers_alone_and_scores_the_same(
    recommender, samples, tmp_path
):
    recommender.save(tmp_path / "run")
    loaded = Recommender.load(tmp_path / "run")
    assert np.array_equal(loaded.score(samples), recommender.score(samples))
    assert {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()} <= {
        ".json",
        ".safetensors",
        ".jinja",
    }


def test_folder_without_a_recommender_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no recommender"):
        Recommender.load(tmp_path)


def test_unknown_model_is_refused_in_one_line(tmp_path):
    with pytest.raises(ModelError) as error:
        load_backbone(tmp_path / "nothing")
    assert "\n" not in str(error.value)


def test_layers_keeps_the_first_blocks_of_a_decoder(tmp_path):
    backbone = toy_backbone("causal")
    backbone.lm.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    assert len(load_backbone(tmp_path, layers=1).lm.model.layers) == 1
    with pytest.raises(ModelError, match=r"outside 1\.\.2"):
        load_backbone(tmp_path, layers=3)


def test_switching_adapters_restores_modes_gradients_and_the_active_set(recommender, samples):
    before = recommender.score(samples)
    recommender.lm = adapters.attach(recommender.lm, "student", LoRA(rank=2, dropout=0.5), seed=1)
    examples = recommender.encode(samples)
    with recommender.using(("student",), train="student") as parameters:
        assert parameters
        assert {p for p in recommender.lm.parameters() if p.requires_grad} == set(parameters)
        assert not recommender.lm.get_base_model().training
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(0.1)
    assert not any(p.requires_grad for p in recommender.lm.parameters())
    assert np.array_equal(recommender.score(samples), before)
    with recommender.using(("student",)), torch.no_grad():
        student = recommender.logits(recommender.collate(examples, np.arange(4)))
    original = recommender.logits(recommender.collate(examples, np.arange(4)))
    assert not torch.allclose(student, original)


def test_merging_and_concatenating_keep_the_outputs(recommender, samples):
    examples = recommender.encode(samples)
    batch = recommender.collate(examples, np.arange(8))
    for k, name in enumerate(("original", "student")):
        recommender.lm = adapters.attach(recommender.lm, name, LoRA(rank=2), seed=k)
        with recommender.using((name,), train=name) as parameters, torch.no_grad():
            for parameter in parameters:
                parameter.normal_(std=0.2)
    both = ("original", "student")
    with recommender.using(both), torch.no_grad():
        expected = recommender.logits(batch)
    merged = recommender.copy()
    merged.lm = adapter_algebra.merge(merged.lm, both)
    assert torch.allclose(merged.logits(batch), expected, atol=1e-4)
    adapter_algebra.concatenate(recommender.lm, both, "unlearned")
    assert adapters.names(recommender.lm) == ["unlearned"]
    with recommender.using(("unlearned",)), torch.no_grad():
        assert torch.allclose(recommender.logits(batch), expected, atol=1e-4)


def places(lm) -> set[int]:
    """Where the weights of a model are in memory, those of adapters left out."""
    return {
        parameter.data_ptr() for name, parameter in lm.named_parameters() if "lora_" not in name
    }


def test_models_on_shared_weights_have_adapters_of_their_own(backbone, samples):
    base = Recommender(backbone, TEMPLATES["compact"])
    examples = base.encode(samples)
    before = base.score(examples)
    models = []
    for seed in range(2):
        shared = backbone.with_shared_weights()
        lm = adapters.attach(shared.lm, "original", LoRA(rank=2), seed=seed)
        for parameter in adapters.up_projections(lm, "original"):
            parameter.data.normal_()
        model = Recommender(replace(shared, lm=lm), TEMPLATES["compact"], active=["original"])
        models.append(model)
    models.append(models[0].copy_adapters())
    scores = [model.score(examples) for model in models]
    assert all(places(model.lm) == places(backbone.lm) for model in models)
    assert not np.allclose(scores[0], scores[1])
    for parameter in adapters.up_projections(models[2].lm, "original"):
        parameter.data.zero_()
    np.testing.assert_array_equal(models[2].score(examples), before)
    models[0].lm = adapter_algebra.merge(models[0].lm, ["original"])
    models[0].active = ()
    np.testing.assert_allclose(models[0].score(examples), scores[0], atol=1e-3)
    np.testing.assert_array_equal(models[1].score(examples), scores[1])
    np.testing.assert_array_equal(base.score(examples), before)


def test_sum_of_adapters_beyond_a_rank_is_the_nearest_of_that_rank(recommender):
    for seed, name in enumerate(("a", "b")):
        recommender.lm = adapters.attach(recommender.lm, name, LoRA(rank=3, alpha=6), seed=seed)
        torch.manual_seed(seed)
        for parameter in adapters.up_projections(recommender.lm, name):
            parameter.data.normal_()

    def updates(*names: str) -> list[torch.Tensor]:
        layers = [module for module in recommender.lm.modules() if isinstance(module, LoraLayer)]
        return [sum(layer.get_delta_weight(name) for name in names).detach() for layer in layers]

    whole = updates("a", "b")
    adapter_algebra.concatenate(recommender.lm, ["a", "b"], "sum", rank=4)
    assert recommender.lm.peft_config["sum"].r == 4
    for exact, update in zip(whole, updates("sum"), strict=True):
        u, values, v = torch.linalg.svd(exact, full_matrices=False)
        nearest = u[:, :4] * values[:4] @ v[:4]
        torch.testing.assert_close(update, nearest, atol=1e-4, rtol=1e-3)
    # the sum may take the place of one of its parts
    recommender.lm = adapters.attach(recommender.lm, "c", LoRA(rank=2), seed=7)
    whole = updates("sum", "c")
    adapter_algebra.concatenate(recommender.lm, ["sum", "c"], "sum")
    assert adapters.names(recommender.lm) == ["sum"]
    for exact, update in zip(whole, updates("sum"), strict=True):
        torch.testing.assert_close(update, exact, atol=1e-4, rtol=1e-3)


def test_removing_the_last_adapter_gives_the_bare_model_back(recommender, samples):
    before = recommender.score(samples)
    recommender.lm = adapters.attach(recommender.lm, "student", LoRA(rank=2), seed=1)
    recommender.lm = adapters.remove(recommender.lm, "student")
    assert adapters.names(recommender.lm) == []
    assert np.array_equal(recommender.score(samples), before)


def test_attaching_an_adapter_leaves_the_global_random_stream_alone(recommender):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    adapters.attach(recommender.lm, "student", LoRA(rank=2), seed=1)
    assert torch.equal(torch.rand(1), expected)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=90), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_holds_every_row_exactly_once(lengths, size, epoch):
    lengths = np.array(lengths)
    for batches in (
        epoch_batches(lengths, size, seed=1, epoch=epoch, window=2),
        batches_by_length(lengths, size),
    ):
        assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
        assert max(map(len, batches)) <= size


@given(st.integers(1, 40), st.integers(1, 7))
def test_endless_batches_hold_no_row_twice_before_every_row_came_once(rows, size):
    batches = endless_batches(np.ones(rows, dtype=int), size, seed=2)
    first = [next(batches) for _ in range(-(-rows // size))]
    assert sorted(np.concatenate(first)) == list(range(rows))


def test_joined_batches_give_each_row_its_own_logits(recommender, samples):
    rows = recommender.encode(samples)
    first, second = (recommender.collate(rows, np.arange(*part)) for part in ((0, 3), (20, 27)))
    with torch.no_grad(), recommender.using():
        together = recommender.logits(join_batches(first, second, recommender.pad))
        apart = torch.cat([recommender.logits(first), recommender.logits(second)])
    assert torch.allclose(together, apart, atol=1e-5)


def test_asking_for_states_leaves_the_output_head_as_it_was(recommender, samples):
    head = recommender.lm.get_output_embeddings()
    with recommender.using():
        recommender.hidden(recommender.collate(recommender.encode(samples), np.arange(3)))
    assert "forward" not in vars(head)
    assert head(torch.zeros(2, head.in_features)).shape == (2, head.out_features)


def test_long_prompt_loses_its_beginning_and_is_counted(backbone, samples):
    short = Recommender(backbone, TEMPLATES["compact"], window=16)
    examples = short.encode(samples)
    assert examples.lengths.max() == 16
    assert examples.truncated > 0
    whole = Recommender(backbone, TEMPLATES["compact"]).encode(samples)
    row = whole.tokens[whole.offsets[5] : whole.offsets[6]]
    assert np.array_equal(examples.tokens[examples.offsets[5] : examples.offsets[6]], row[-16:])


# --- tokens ---------------------------------------------------------------------------------


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_joined_tokens_are_those_of_the_whole_text(backbone, samples, template, monkeypatch):
    monkeypatch.setattr(tokens, "CHECK_ROWS", 20)  # the rest is joined
    calls: list[int] = []
    join = tokens.Pieces.join
    monkeypatch.setattr(tokens.Pieces, "join", lambda self, cut: calls.append(1) or join(self, cut))
    reader = {"tokenizer": backbone.tokenizer, "seq2seq": backbone.seq2seq, "window": 40}
    whole = tokens.tokenise(samples, TEMPLATES[template], **reader, join_pieces=False)
    assert not calls
    joined = tokens.tokenise(samples, TEMPLATES[template], **reader)
    assert len(calls) == len(samples)  # 20 of them to be checked
    np.testing.assert_array_equal(joined.tokens, whole.tokens)
    np.testing.assert_array_equal(joined.offsets, whole.offsets)


def test_pieces_that_a_tokenizer_would_merge_are_not_joined(backbone, samples, monkeypatch):
    class Unlucky(PromptTemplate):
        name = "unlucky"

        def pieces(self, shown):
            return ["Li", "ked:", f" {shown.target}", "?"]  # "Liked:" is one token

    monkeypatch.setattr(tokens, "CHECK_ROWS", 20)
    reader = {"tokenizer": backbone.tokenizer, "seq2seq": backbone.seq2seq, "window": 40}
    whole = tokens.tokenise(samples, Unlucky(), **reader, join_pieces=False)
    np.testing.assert_array_equal(
        tokens.tokenise(samples, Unlucky(), **reader).tokens, whole.tokens
    )


def test_base_that_a_run_folder_names_is_never_looked_for_in_the_network(monkeypatch):
    calls = []

    def call(*words: object, **more: object) -> None:
        calls.append(words)
        raise OSError("there is no network here")

    # The tests are told to ask none, and it is the argument that must see to that.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", call)
    monkeypatch.setattr("socket.getaddrinfo", call)
    with pytest.raises(ModelError, match=r"named by the run folder, .* hf download no/such"):
        load_backbone("no/such", offline=True)
    assert calls == []


def test_code_beside_a_model_is_not_run(toy, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(toy, folder)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "theirs"
    names = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_backbone(folder)
    assert not (tmp_path / "ran").exists()
