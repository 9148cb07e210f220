"""The benchmark of memory makes the models that it says, each command on its own."""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from e2urec.runs.folder import open_run

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import size


def test_each_variant_trains_and_unlearns_on_a_base_of_its_precision(toy, monkeypatch):
    commands = []

    def here(command: str, job: dict[str, object]) -> dict[str, float]:
        figures = size.carry_out(job | {"command": command})
        folder = Path(str(job["folder"]))
        weights = load_file(folder / str(job["dtype"]) / "model.safetensors")
        original = open_run(folder / f"original-{job['number']}")
        schedule = original.record.recipe["tuning"]["schedule"]
        dtype = next(iter(weights.values())).dtype
        commands.append((command, dtype, schedule["micro_batch"]))
        return figures

    monkeypatch.setattr(size, "run_apart", here)
    names = ["bf16, micro_batch=4"]
    variants = {name: size.VARIANTS[name] for name in names}
    monkeypatch.setattr(size, "VARIANTS", variants)
    figures = size.measure_all(str(toy), rows=60)
    assert commands == [
        ("train", torch.bfloat16, 4),
        ("unlearn", torch.bfloat16, 4),
    ]
    assert list(figures) == names
    assert all(0 < figure["bytes"] < figure["bytes_in_total"] for figure in figures.values())


def test_job_is_given_as_one_word(monkeypatch, capsys):
    monkeypatch.setattr(size, "carry_out", lambda job: {"bytes": job["rows"]})
    monkeypatch.setattr("sys.argv", ["size.py", "--job", '{"rows": 3}'])
    size.main()
    assert capsys.readouterr().out == '{"bytes": 3}\n'
