"""Planned bytes are those that a real toy takes, and are had without its weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import AutoConfig

import e2urec.methods.e2urec
import e2urec.unlearning.augmented
from e2urec.api.plan_memory import plan_memory
from e2urec.cli.memory_sheet import show_memory
from e2urec.core.errors import ModelError
from e2urec.data.prompts import TEMPLATES
from e2urec.experiments.memory import plan as memory_plan
from e2urec.experiments.memory.levers import levers_of, search_remedy
from e2urec.experiments.memory.moments import (
    CommandMemory,
    Machine,
    MemoryPlan,
    Moment,
    RowCounts,
)
from e2urec.experiments.memory.plan import Planner
from e2urec.experiments.memory.sentences import plan_sentences
from e2urec.experiments.memory.simulated_steps import SimulatedModel
from e2urec.experiments.recipe import Recipe, method_of
from e2urec.methods import build
from e2urec.models import adapters
from e2urec.models.backbone import Backbone, load_backbone, load_frozen
from e2urec.models.batches import pack
from e2urec.models.live_bytes import (
    HEAP_BYTES,
    LiveBytes,
    model_tensors,
    tensor_bytes,
    without_values,
)
from e2urec.models.quantisation import quantised_bytes
from e2urec.models.recommender import Recommender
from e2urec.models.weightless import read_config
from e2urec.testing import toy_backbone, toy_task
from e2urec.training.micro_batches import StepGradients
from e2urec.training.process_share import ProcessShare
from e2urec.training.state import TrainingState
from e2urec.training.supervised import fully_trainable, supervised
from e2urec.unlearning.row_gradients import RowGradients
from e2urec.unlearning.student import Student, frozen_teacher
from e2urec.unlearning.teachers import FrozenTeacher
from toy_gguf import write_gguf

CPU = Machine(is_gpu=False, bytes=10**9)
GPU = Machine(is_gpu=True, bytes=10**9)
ROWS = RowCounts(train=1000, ratio=0.2)
WINDOW = 64
BATCH = 4
TUNINGS = {
    "whole": [],
    "blocks": ["tuning.embeddings=false"],
    "lora": ["tuning.lora.rank=4", "tuning.lora.targets=all"],
}


def recipe_of(*settings: str) -> Recipe:
    fixed = [
        f"model.window={WINDOW}",
        f"tuning.schedule.batch_size={BATCH}",
        "tuning.schedule.precision=fp32",
        "scores.pairs=0",
    ]
    return Recipe().updated([*fixed, *settings])


def config_of(kind: str) -> AutoConfig:
    config = toy_backbone(kind).lm.config
    # As it comes from a file, which says nothing of how attention is computed.
    return type(config).from_dict(config.to_dict())


def real_step(backbone: Backbone, recipe: Recipe) -> SimpleNamespace:
    """A step of training with weights: the bytes of what is there, and those that it took."""
    model = Recommender(backbone, TEMPLATES["compact"], window=WINDOW)
    weights = tensor_bytes(model_tensors(model.lm))
    lora = recipe.tuning.lora
    if lora is not None:
        model.lm = adapters.attach(model.lm, "original", lora, seed=0)
        model.active = ("original",)
        trainable = model.using(train="original")
    else:
        trainable = fully_trainable(model, embeddings=recipe.tuning.embeddings)
    # A shorter row, since a mask is made of batches with padding alone.
    lengths = [WINDOW] * (BATCH - 1) + [WINDOW - 1]
    labels = np.zeros(BATCH, np.int8)
    rows = pack([[5] * length for length in lengths], labels, labels, window=WINDOW)
    with trainable as parameters:
        state = TrainingState.start(parameters, recipe.tuning.schedule)
        accelerator = Accelerator(cpu=True)
        gradients = StepGradients(model, supervised(model, rows), state, accelerator, "train")
        live = LiveBytes(model, parameters)
        with live:
            gradients.leave(ProcessShare.of({"train": np.arange(BATCH)}, accelerator))
        state.optimizer.step()
        moments = [
            value
            for states in state.optimizer.state.values()
            for value in states.values()
            if isinstance(value, torch.Tensor)
        ]
        return SimpleNamespace(
            weights=weights,
            adapters=tensor_bytes(model_tensors(model.lm)) - weights,
            gradients=tensor_bytes([parameter.grad for parameter in parameters]),
            optimizer=tensor_bytes(moments),
            peak=live.peak,
        )


@pytest.mark.parametrize(
    ("kind", "tuning"), [("causal", "whole"), ("causal", "lora"), ("seq2seq", "blocks")]
)
def test_planned_step_takes_the_bytes_of_a_real_one(kind: str, tuning: str) -> None:
    recipe = recipe_of(*TUNINGS[tuning])
    real = real_step(toy_backbone(kind), recipe)

    parts = Planner(recipe, config_of(kind), CPU, ROWS).train().peak.parts

    assert parts["weights"] == real.weights
    assert parts["adapters"] == real.adapters
    assert parts["optimizer"] == real.optimizer
    planned = parts["activations"] + parts["logits"] + parts["gradients"]
    assert planned == pytest.approx(real.peak.total, rel=1e-3)
    assert parts["gradients"] <= real.gradients
    # Tuned as a whole, a copy of the base is.
    assert parts.get("copies", 0) == (0 if tuning == "lora" else real.weights)


@pytest.mark.parametrize(
    "settings",
    [[], ["tuning.schedule.micro_batch=2"], ["tuning.schedule.gradient_checkpointing=true"]],
    ids=["whole step", "parts", "computed twice"],
)
def test_planned_step_on_a_stored_base_takes_the_bytes_of_a_real_one(
    toy: Path, tmp_path: Path, settings: list[str]
) -> None:
    backbone = load_backbone(toy)
    backbone.lm.to(torch.bfloat16).save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    recipe = recipe_of(*TUNINGS["lora"], *settings)
    real = real_step(load_frozen(tmp_path), recipe)
    config = read_config(tmp_path, layers=None, offline=True)
    parts = Planner(recipe, config, CPU, ROWS).train().peak.parts
    assert parts["weights"] == real.weights
    assert parts["adapters"] == real.adapters
    planned = parts["activations"] + parts["logits"] + parts["gradients"]
    assert planned == pytest.approx(real.peak.total, rel=1e-2)


def test_a_student_has_teachers_states_and_cached_lower_ones() -> None:
    width = config_of("causal").hidden_size
    recipe = recipe_of("method.preset=gain")
    plan = Planner(recipe, config_of("causal"), CPU, ROWS).unlearn()
    parts = plan.moments[-1].parts
    # Of D_f, of the 16 batches of 16 rows that are read of D_r, and the augmented model's of D_f;
    # and the places of all rows.
    assert parts["teacher_states"] == 656 * width * 4 + 1200 * 8
    assert parts["replayed_states"] == 2 * 16 * WINDOW * width * 4
    assert plan.disk == 456 * WINDOW * width * 4


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_planned_teachers_states_are_those_that_a_request_holds(kind: str, monkeypatch) -> None:
    held = []

    def noted(*arguments: Any, **options: Any) -> FrozenTeacher:
        teacher = frozen_teacher(*arguments, **options)
        held.append(tensor_bytes([teacher.states.states, teacher.states.places]))
        return teacher

    for module in (e2urec.methods.e2urec, e2urec.unlearning.augmented):
        monkeypatch.setattr(module, "frozen_teacher", noted)
    settings = {"min_steps": 2, "augment_min_steps": 2, "batch_size": 4}
    task = toy_task(kind)
    build("e2urec", settings, "gain").unlearn(task)
    forget, retain = len(task.forget), len(task.retain)
    assert forget + 8 < retain, "most of D_r is not read"
    rows = RowCounts(train=forget + retain, ratio=forget / (forget + retain))
    words = [f"method.{name}={value}" for name, value in settings.items()]
    parts = Planner(recipe_of(*words), config_of(kind), CPU, rows).unlearn().moments[-1].parts
    row_bytes = config_of(kind).hidden_size * 4
    assert len(held) == 3
    assert parts["teacher_states"] == pytest.approx(sum(held), abs=4 * row_bytes)


def solved_recipe(*settings: str) -> Recipe:
    lora = "method.lora={rank=4, targets='all', upper=1.0}"
    return recipe_of("scores.pairs=1", lora, *settings)


@pytest.mark.parametrize(
    ("kind", "words", "off"),
    [
        ("causal", (), 0.01),
        ("causal", ("tuning.schedule.gradient_checkpointing=true",), 0.01),
        ("seq2seq", (), 0.2),
    ],
)
def test_planned_pass_that_tells_single_rows_gradients_takes_the_bytes_of_a_real_one(
    kind: str, words: tuple[str, ...], off: float
) -> None:
    few = RowCounts(train=70, ratio=0.5)
    planner = Planner(solved_recipe(*words), config_of(kind), CPU, few)
    moment = planner.unlearn().moments[-1]
    labels = np.zeros(BATCH, np.int8)
    rows = pack([[5] * (WINDOW - 1)] + [[5] * WINDOW] * (BATCH - 1), labels, labels, window=WINDOW)
    task = replace(toy_task(kind), precision="fp32")
    with Student(task, planner.method.lora, seed=1) as student:
        row_gradients = RowGradients(student, 10**6, BATCH)
        held = torch.empty(BATCH, row_gradients.size)
        live = LiveBytes(student.model, adapters.up_projections(student.model.lm, student.name))
        with live:
            row_gradients.put_into(held, rows)
    parts = moment.parts
    assert moment.title == "gradients of single rows"
    assert parts["row_gradients"] == 70 * (row_gradients.size + 2 * 70) * 4
    assert "optimizer" not in parts
    planned = parts["activations"] + parts["logits"] + parts["gradients"]
    assert planned == pytest.approx(live.peak.total, rel=off)


def test_lever_of_one_part_of_a_setting_leaves_the_others_as_they_are() -> None:
    words = "method.solving={below=300, memory_gb=2.0}"
    levers = levers_of("unlearn", is_fixed=True)
    tried = []

    def fits(recipe: Recipe) -> bool:
        tried.append(method_of(recipe).solving)
        return False

    assert not search_remedy(levers, solved_recipe(words), fits)
    assert {(solving.below, solving.memory_gb) for solving in tried} == {(300, 1.0)}
    tried.clear()
    search_remedy(levers, solved_recipe(words.replace("2.0", "0.5")), fits)
    assert {solving.memory_gb for solving in tried} == {0.5}


def test_student_of_a_request_too_large_to_be_solved_for_is_planned_as_a_trained_one() -> None:
    few = RowCounts(train=70, ratio=0.5)
    many = RowCounts(train=700, ratio=0.5)
    titles = []
    for words, rows in (((), few), (("method.solving={below=10}",), few), ((), many)):
        planner = Planner(solved_recipe(*words), config_of("causal"), CPU, rows)
        titles.append(planner.unlearn().moments[-1].title)
    assert titles == ["gradients of single rows", "a step of the student", "a step of the student"]


def test_teachers_that_are_asked_at_each_look_up_hold_nothing() -> None:
    recipe = recipe_of("method.speed={kept_teachers=false}")
    moments = Planner(recipe, config_of("causal"), CPU, ROWS).unlearn().moments
    assert all(not moment.parts.get("teacher_states") for moment in moments)


def stored_config(dtype: torch.dtype) -> AutoConfig:
    config = config_of("causal")
    config.dtype = dtype
    return config


def test_full_copy_of_a_stored_base_is_planned_in_float32() -> None:
    words = ["tuning.lora.rank=4", "method.augment=full", "method.start_scale=0"]
    moments = []
    for dtype in (torch.float32, torch.bfloat16):
        config = stored_config(dtype)
        # A step is simulated operation by operation: one block says as much as two.
        config.num_hidden_layers = 1
        plan = Planner(recipe_of(*words), config, CPU, ROWS).unlearn()
        moments += [moment for moment in plan.moments if "augmented" in moment.title]
    for part in ("copies", "optimizer", "gradients", "activations"):
        assert moments[0].parts[part] == moments[1].parts[part]
    assert moments[1].parts["weights"] < 0.6 * moments[0].parts["weights"]


def test_gaps_are_planned_between_the_smaller_tensors_of_a_cpu_alone() -> None:
    recipe = recipe_of("tuning.lora.rank=4")
    config = config_of("causal")
    on_cpu, on_gpu = (Planner(recipe, config, machine, ROWS).train().peak for machine in (CPU, GPU))
    sizes = [on_cpu.parts[part] for part in ("activations", "logits", "gradients")]
    # A toy has no larger tensors.
    assert on_cpu.parts["gaps"] == sum(sizes)
    assert on_gpu.parts["gaps"] == 0


def test_blocks_that_are_computed_twice_are_planned_for_a_gpu() -> None:
    config = config_of("causal")
    whole, twice = (
        Planner(
            recipe_of("tuning.lora.rank=4", f"tuning.schedule.gradient_checkpointing={word}"),
            config,
            GPU,
            ROWS,
        ).train()
        for word in ("false", "true")
    )
    assert twice.peak.parts["activations"] < whole.peak.parts["activations"]


def test_largest_tensors_leave_no_gaps() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.lm = SimpleNamespace(get_output_embeddings=lambda: layer)
    live = LiveBytes(layer)
    with without_values(), live:
        tensors = [torch.empty(count, dtype=torch.uint8) for count in (HEAP_BYTES, HEAP_BYTES + 1)]
    assert live.peak.total == 2 * HEAP_BYTES + 1
    assert live.peak.heap == HEAP_BYTES
    del tensors
    assert live.current == live.current_heap == 0


def test_a_gpu_keeps_no_scores_of_attention() -> None:
    recipe = recipe_of("tuning.lora.rank=4", "model.window=256")
    config = config_of("causal")
    config.num_hidden_layers = 1
    on_cpu, on_gpu = (SimulatedModel(recipe, config, machine) for machine in (CPU, GPU))
    peaks = []
    for simulated in (on_cpu, on_gpu):
        with simulated.tuned_parameters() as parameters:
            peaks.append(simulated.supervised_step(parameters, BATCH))
    # Of each head (t, t) scores, before and after the softmax.
    scores = BATCH * config.num_attention_heads * 256 * 256 * 4
    assert peaks[0].activations - peaks[1].activations > 2 * scores


def test_whole_models_that_answered_leave_a_copy_of_their_heads() -> None:
    config = config_of("causal")
    head = config.vocab_size * config.hidden_size * 4
    whole = Planner(recipe_of(), config, CPU, ROWS).evaluate().moments
    (next_model,) = (moment for moment in whole if moment.title == "answers of the next model")
    assert next_model.parts["heads"] == head
    assert "copies" not in next_model.parts
    assert whole[-1].parts["heads"] == 2 * head
    # Adapters answer with the head of their base, which stays.
    adapted = Planner(recipe_of(*TUNINGS["lora"]), config, CPU, ROWS).evaluate().moments
    assert all("heads" not in moment.parts for moment in adapted)
    assert adapted[-1].parts["weights"] > head


def test_remedy_names_the_settings_that_are_needed_and_no_other() -> None:
    def fits(recipe: Recipe) -> bool:
        return recipe.tuning.lora is not None and recipe.model.window <= 256

    recipe = Recipe()
    remedy = search_remedy(levers_of("train", is_fixed=False), recipe, fits)
    assert remedy == ("tuning.lora.rank=16", "model.window=256")
    assert fits(recipe.updated(remedy))
    assert not search_remedy(levers_of("train", is_fixed=False), recipe, lambda trial: False)


def test_remedy_for_a_run_leaves_its_model_alone_and_raises_no_number() -> None:
    trials = []

    def fits(recipe: Recipe) -> bool:
        trials.append(recipe)
        return False

    recipe = Recipe().updated(["method.batch_size=4"])
    search_remedy(levers_of("unlearn", is_fixed=True), recipe, fits)
    assert method_of(trials[-1]).batch_size == 1
    assert method_of(trials[-1]).speed.together == "batch"
    for trial in trials:
        assert (trial.model, trial.tuning) == (recipe.model, recipe.tuning)
        assert method_of(trial).batch_size <= 4


@pytest.mark.parametrize("form", ["safetensors", "gguf"])
def test_fewer_bits_are_advised_unless_the_base_comes_out_of_a_gguf_file(
    tmp_path: Path, monkeypatch, form: str
) -> None:
    backbone = toy_backbone("causal")
    base = tmp_path / "base"
    if form == "gguf":
        write_gguf(backbone.lm, backbone.tokenizer, base)
    else:
        backbone.lm.save_pretrained(base)
    tried: dict[str, object] = {}

    def record(levers: list, recipe: Recipe, fits: object) -> tuple[str, ...]:
        tried.update(levers)
        return ()

    monkeypatch.setattr(memory_plan, "search_remedy", record)
    plan_memory(str(base), ["tuning.lora.rank=2", "model.window=16"], gpu_gb=1e-6)
    assert "tuning.schedule.micro_batch" in tried
    assert ("model.quantize" in tried) == (form == "safetensors")


def test_command_plans_from_the_configuration_alone(call, toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "config-alone"
    folder.mkdir()
    shutil.copy(toy / "config.json", folder)
    settings = ["--set", "model.window=16", "--set", "tuning.lora.rank=2"]
    status, printed, error = call("plan", folder, "--gpu", "80", "--json", *settings)
    assert status == 0, error
    values = json.loads(printed)
    assert values["parameters"] == load_backbone(toy).lm.num_parameters()
    assert values["memory"] == 80 * 10**9
    assert set(values["commands"]) == {"train", "unlearn", "evaluate"}
    for command in values["commands"].values():
        assert command["fits"]
        totals = {title: sum(parts.values()) for title, parts in command["moments"].items()}
        assert command["peak"] == max(totals.values()) == totals[command["peak_at"]]


def test_sheet_says_what_fits_what_would_and_what_never_will(capsys) -> None:
    step = Moment("a step", {"weights": 10**9, "activations": 10**9})
    commands = (
        CommandMemory("train", (step, Moment("an answer", {"weights": 10**9})), disk=5 * 10**8),
        CommandMemory("unlearn", (Moment("a step", {"weights": 4 * 10**9}),), remedy=("a.b=1",)),
        CommandMemory("evaluate", (Moment("a step", {"weights": 5 * 10**9}),)),
    )
    machine = Machine(is_gpu=True, bytes=2 * 10**9)
    plan = MemoryPlan("model", 7, "float32", machine, 512, 10, commands, ("A sentence.",))
    show_memory(plan, as_json=False)
    sheet = " ".join(capsys.readouterr().out.split())
    assert "one GPU, 2 GB" in sheet
    assert "together 2.000 4.000 5.000" in sheet
    # As full as that, a plan that is off by a little may be wrong.
    assert "train: most in a step, 100% of the memory; it may not fit" in sheet
    assert "train: up to 0.5 GB on the disk" in sheet
    assert "unlearn: most in a step, 200% of the memory; it does not fit, and would with" in sheet
    assert "--set a.b=1" in sheet
    assert "it does not fit, and no setting changes that" in sheet
    assert sheet.endswith("A sentence.")


def test_method_with_several_students_is_told_and_left_out() -> None:
    planner = Planner(recipe_of("method.name=sisa"), config_of("causal"), CPU, ROWS)
    assert planner.unlearn() is None
    sentences = plan_sentences(planner.recipe, planner.method, CPU, ROWS)
    assert any("not planned for method 'sisa'" in text for text in sentences)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--gpu", "0"), ("--gpu", "-1"), ("--gpu", "nan"), ("--gpu", "inf"), ("--rows", "0")],
)
def test_nothing_to_plan_for_is_one_line(call, toy: Path, option: str, value: str) -> None:
    status, _, error = call("plan", toy, option, value)
    assert status == 2
    assert option in error
    assert len(error.strip().splitlines()) == 1


def test_unknown_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="configuration cannot be read"):
        plan_memory(str(tmp_path))


def test_quantised_layers_take_their_bits_and_their_scales() -> None:
    layer = torch.nn.Linear(4096, 4096, device="meta")
    count = 4096 * 4096
    assert quantised_bytes(layer, "8bit") == count + 4096 * 4
    # A byte for 64 weights, a float for 256 of these bytes, two tables and a mean.
    scales = count // 64 + count // 64 // 256 * 4
    assert quantised_bytes(layer, "4bit") == count // 2 + scales + (16 + 256 + 1) * 4

    whole, packed = (
        SimulatedModel(recipe_of("tuning.lora.rank=4", *bits), config_of("causal"), CPU)
        for bits in ([], ["model.quantize=8bit"])
    )
    assert packed.weight_bytes < whole.weight_bytes
    assert packed.adapter_bytes == whole.adapter_bytes
