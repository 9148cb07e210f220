"""How often the weights of a base are in memory while commands run, and in how many bytes."""

import gc
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import foreign_models as foreign
from e2urec.api.adopt import AdoptOptions, adopt
from e2urec.api.evaluate import evaluate
from e2urec.api.rehearse import RehearsalOptions, rehearse
from e2urec.api.request import RequestOptions
from e2urec.api.train import train
from e2urec.api.unlearn import unlearn
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.study import Study
from e2urec.methods import build
from e2urec.models import backbone
from e2urec.models.recommender import Recommender
from e2urec.runs.folder import open_run
from e2urec.testing import toy_tokenizer
from e2urec.training.micro_batches import StepGradients
from toy_data import quick_settings, write_ratings

# No other matrix of a run has this shape: it is that of the base's alone, one in each block.
SHAPE = (32, 112)
BLOCKS = 2
SMALL = ["data.unseen=0.1", "data.rows=80", "data.held_rows=40", "data.test_rows=40"]
ADAPTER = ["tuning.lora.rank=4"]
FULL: list[str] = []
FEW = {"min_steps": 2, "augment_min_steps": 2}
REQUEST = RequestOptions(ratio=0.2)


@dataclass
class Copies:
    """Most copies of the base that were in memory at a time, in float32 and in fewer bits."""

    float32: float = 0.0
    low: float = 0.0

    def count(self, weights: Iterable[torch.Tensor]) -> None:
        """Count the copies that these weights are."""
        # Tied and shared weights are one. A stand-in of the same shape holds a single number.
        dtypes = {
            weight.untyped_storage().data_ptr(): weight.dtype
            for weight in weights
            if weight.shape == SHAPE and weight.is_contiguous()
        }
        high = list(dtypes.values()).count(torch.float32)
        self.float32 = max(self.float32, high / BLOCKS)
        self.low = max(self.low, (len(dtypes) - high) / BLOCKS)


@pytest.fixture
def copies_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Copies]:
    """Run something, and count copies whenever a model is loaded, made, or begins to be tuned."""
    weights: dict[int, weakref.ref[torch.nn.Parameter]] = {}
    place: list[Copies] = []

    def look(lm: torch.nn.Module) -> None:
        for weight in lm.parameters():
            weights[id(weight)] = weakref.ref(weight)
        alive = [weight for reference in weights.values() if (weight := reference()) is not None]
        for copies in place:
            copies.count(alive)

    def looking(owner: object, name: str, model_of: Callable[..., Any]) -> None:
        usual = getattr(owner, name)

        def and_look(*args: Any, **kwargs: Any) -> Any:
            result = usual(*args, **kwargs)
            look(model_of(result, *args).lm)
            return result

        monkeypatch.setattr(owner, name, and_look)

    looking(backbone, "_load", lambda loaded, *args: loaded)
    looking(Recommender, "__init__", lambda result, model, *args: model)
    looking(StepGradients, "__init__", lambda result, gradients, model, *args: model)

    def count(command: Callable[..., object], *args: object, **kwargs: object) -> Copies:
        copies = Copies()
        place.append(copies)
        try:
            command(*args, **kwargs)
        finally:
            place.clear()
        return copies

    return count


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that is stored in bf16."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = toy_tokenizer(closes=False)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=SHAPE[0],
        intermediate_size=SHAPE[1],
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(base: Path, tmp_path: Path) -> Recipe:
    settings = quick_settings(write_ratings(tmp_path), base)
    return Recipe.build({}, place="test").updated([*settings, *SMALL])


def gone() -> bool:
    """Whether no weight of a model is in memory any more."""
    gc.collect()
    kinds = (torch.Tensor, torch.nn.Parameter)
    left = Copies()
    left.count(thing for thing in gc.get_objects() if type(thing) in kinds)
    return left == Copies()


@pytest.mark.parametrize(
    ("tuning", "low", "float32"),
    # A fully tuned model has weights of its own beside the base. Retraining has the original, too.
    [(ADAPTER, 1, (0, 0, 0, 0, 0)), (FULL, 0, (2, 1, 3, 1, 3))],
    ids=["lora", "full"],
)
def test_commands_hold_few_copies_of_the_base_and_let_go_of_them(
    tuning, low, float32, recipe, copies_of, tmp_path
):
    settings = recipe.updated(tuning)
    original = tmp_path / "original"
    counts = {"train": copies_of(train, settings, original)}
    run = open_run(original)
    for name, method in (("unlearn", build("e2urec", FEW, "gain")), ("retrain", build("retrain"))):
        counts[name] = copies_of(unlearn, run, tmp_path / name, method, REQUEST)
    forgotten, retrained = (open_run(tmp_path / name) for name in ("unlearn", "retrain"))
    counts["evaluate"] = copies_of(evaluate, forgotten, [retrained], REQUEST)
    neggrad = build("neggrad", {"min_steps": 2})
    counts["rehearse"] = copies_of(rehearse, run, [neggrad], RehearsalOptions(times=2))
    assert {name: count.low for name, count in counts.items()} == dict.fromkeys(counts, low)
    most = dict(zip(counts, float32, strict=True))
    assert {name: count.float32 for name, count in counts.items()} == most
    assert gone()


MAPS = Path("/proc/self/maps")


@pytest.mark.skipif(not MAPS.exists(), reason="this system does not tell which files are mapped")
def test_answers_of_whole_models_hold_no_pages_of_their_files(recipe, tmp_path, monkeypatch):
    run = train(recipe, tmp_path / "original")
    neggrad = build("neggrad", {"min_steps": 2})
    forgotten = unlearn(run, tmp_path / "forgotten", neggrad, REQUEST)
    retrained = unlearn(run, tmp_path / "retrained", build("retrain"), REQUEST)
    mapped = []
    usual = Study.measure

    def measure(study: Study, **options: object) -> object:
        gc.collect()
        mapped.extend(line for line in MAPS.read_text().splitlines() if str(tmp_path) in line)
        # Distances over the vocabulary need the heads of all models all the same.
        assert all(len(answers.forget.head.weight) for answers in study.answers.values())
        return usual(study, **options)

    monkeypatch.setattr(Study, "measure", measure)
    evaluate(forgotten, [retrained], REQUEST)
    assert mapped == []


@pytest.mark.parametrize("form", ["adapter", "model"])
def test_import_holds_one_copy_at_a_time(form, base, copies_of, tmp_path):
    rows, held = foreign.write_rows(tmp_path)
    tuned = tmp_path / form
    tokenizer = AutoTokenizer.from_pretrained(base)
    lm = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if form == "adapter":
        foreign.tune_adapter(lm, tokenizer, rows, tuned)
    else:
        # By its embeddings it is known of which base a model is.
        lm.get_input_embeddings().requires_grad_(False)
        foreign.tune(lm, tokenizer, rows)
        lm.save_pretrained(tuned)
        tokenizer.save_pretrained(tuned)
    del lm
    form_file = tmp_path / "form.j2"
    form_file.write_text(foreign.FORM, encoding="utf-8")
    options = {"held": str(held), "format": str(form_file)}
    data = {"source": str(rows), "template": "verbatim", "options": options}
    recipe = Recipe.build({"data": data}, place="test")
    out = tmp_path / "run"
    copies = copies_of(adopt, recipe, str(tuned), out, AdoptOptions(base=str(base), min_mass=0))
    assert copies == (Copies(0, 1) if form == "adapter" else Copies(1, 0))
    assert gone()
