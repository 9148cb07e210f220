"""How fast and how large: the published algorithm, ours at the same precision, ours with everything, and retraining.

    python benchmarks/unlearning.py --original RUN --retrained RUN --retrained RUN [--json]

`RUN`s are run folders of `e2urec train` and `e2urec unlearn --method retrain`; with retrained models of the recipe's
own request M_auc is told as well. `--backbone smollm2` (all 30 blocks) and `t5` (T5-small's shape, random weights)
need no run: they measure speed and memory alone, on fewer rows, at α = 2. Every variant runs in a process of its own,
in turn, `--rounds` times; loading the model is timed apart. Memory is the peak of the resident set less its size after
imports.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from transformers import T5Config, T5ForConditionalGeneration

from e2urec.evaluation.evaluate import evaluate
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace, resolve_model
from e2urec.methods import build
from e2urec.methods.e2urec import E2URec
from e2urec.models.backbone import load_backbone
from e2urec.models.recommender import Recommender
from e2urec.unlearning.task import Task
from published import Published

PASSES = {"augment": 1.48, "warmup": 1.0, "joint": 2.0}
"""Over D_f: the released settings' augmented model and warm-up, and two joint passes."""
SAME = {"augment_passes": 1.48, "warmup": 1.0, "joint": 2.0, "min_steps": 1, "augment_min_steps": 1}
FEW = {
    "data.rows": 240,
    "data.per_user": 8,
    "data.history": 5,
    "data.test_rows": 100,
    "data.held_rows": 200,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "same_precision": {"settings": SAME, "precision": "fp32"},
    "all": {"settings": SAME},
    "default": {},
    "retrain": {"method": "retrain"},
}
SMALL = ("default", "retrain")
"""Variants that a request of 3% is put to."""
SETTINGS = E2URec()
LEVERS: dict[str, dict[str, Any]] = {
    "every lever": {},
    "adapters on all blocks, so nothing to replay": {"settings": {"lora": {"upper": 1.0}}},
    "lower blocks computed anew": {"settings": {"speed": {"replay": False}}},
    "teachers asked anew at each step": {"settings": {"speed": {"kept_teachers": False}}},
    "last block at all positions": {"settings": {"speed": {"answer_only": False}}},
    "forget and retain rows in a pass each": {"settings": {"speed": {"together": "batch"}}},
    "a pass for each loss, with CE in L_REM": {
        "settings": {"remember": "kl+ce", "speed": {"together": "loss"}}
    },
    "augmented model as a full copy, no start": {
        "settings": {"augment": "full", "start_scale": 0.0, "augment_rate": 5e-5}
    },
    "random batches": {"settings": {"speed": {"buckets": False}}},
    "float32": {"precision": "fp32"},
}


def settings_of(
    original: str | None, backbone: str, ratio: float, precision: str = "auto"
) -> Recipe:
    """The recipe of run `original` with another share of users to forget, or one for `backbone` as it comes."""
    if original:
        values = json.loads((Path(original) / "run.json").read_text(encoding="utf-8"))["recipe"]
        recipe = Recipe.build(values, place=original)
    else:
        recipe = Recipe().updated(
            [f"model.name={backbone}", *(f"{key}={value}" for key, value in FEW.items())]
        )
    return recipe.updated([f"request.ratio={ratio}", f"tuning.schedule.precision={precision}"])


def measure(ask: dict[str, Any], out: Path) -> None:
    """One variant in this process: seconds by phase, bytes, and what the model then answers, written to `out`."""
    after_imports = psutil.Process().memory_info().rss
    recipe = settings_of(
        ask["original"], ask["backbone"], ask["ratio"], ask.get("precision", "auto")
    )
    space = Workspace(recipe)
    started = time.perf_counter()
    if ask["original"]:
        model = space.reader = Recommender.load(Path(ask["original"]))
    else:
        model = space.reader = Recommender(
            load_backbone(resolve_model(ask["backbone"])), space.template
        )
    seconds = {"loading": time.perf_counter() - started}
    rows = space.rows(space.resolve(space.request()))
    method = build(ask.get("method", "e2urec"), ask.get("settings", {}))
    task = space.task(model, rows, method)
    Task.watch = lambda self, phase, model, active=None: None  # type: ignore[method-assign]
    if ask["variant"] == "published":
        plain = Published(model, rows.forget, rows.retain, task.seed)
        result = plain.unlearn(**PASSES)
        seconds |= plain.seconds
    else:
        result = method.unlearn(task)
        seconds |= {
            phase: value for phase, value in task.costs.seconds.items() if phase != "logging"
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    record = {
        "seconds": seconds,
        "bytes": peak - after_imports,
        "bytes_in_total": peak,
        "rows": rows.counts(),
    }
    answers = (
        rows.evaluation.ask(result, precision=recipe.tuning.schedule.precision)
        if ask["scored"]
        else {}
    )
    np.savez(
        out, record=json.dumps(record), **{part: found.log_odds for part, found in answers.items()}
    )


def run(ask: dict[str, Any]) -> dict[str, Any]:
    """`measure` in a process of its own: its record, and `odds` by part."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.npz"
        subprocess.run(
            [sys.executable, __file__, "--ask", json.dumps(ask), "--out", str(out)], check=True
        )
        with np.load(out) as found:
            record: dict[str, Any] = json.loads(str(found["record"]))
            record["odds"] = {part: found[part] for part in found.files if part != "record"}
    record["total"] = sum(value for phase, value in record["seconds"].items() if phase != "loading")
    print(
        f"{ask['variant']}, {ask['ratio']:.0%}: {record['total']:.1f} s, {record['bytes'] / 1e6:.0f} MB",
        file=sys.stderr,
    )
    return record


class Quality:
    """M_auc and test AUC of whatever a variant answered, with intervals over users."""

    def __init__(self, original: str, retrained: list[str], ratio: float) -> None:
        space = Workspace(settings_of(original, "", ratio))
        model = space.reader = Recommender.load(Path(original))
        rows = space.rows(space.resolve(space.request()))
        self.sets, self.seed = rows.evaluation, space.recipe.seed
        self.before = self.sets.ask(model)
        self.retrained = [self.sets.ask(Recommender.load(Path(run))) for run in retrained]

    def __call__(self, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """`memory_auc` and `auc` by variant: value, low and high."""
        answers = {
            name: {
                part: replace(self.before[part], hidden=None, log_odds=odds)
                for part, odds in record["odds"].items()
            }
            for name, record in found.items()
        }
        results = evaluate(self.before, self.retrained, answers, seed=self.seed).as_dict()
        return {
            name: {
                "memory_auc": results["memory"][name]["auc"],
                "auc": results["models"][name]["auc"],
            }
            for name in found
        }


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of seconds and bytes over rounds, and the answers of the first."""
    return records[0] | {
        "total": statistics.median(record["total"] for record in records),
        "bytes": statistics.median(record["bytes"] for record in records),
        "seconds": {
            phase: statistics.median(record["seconds"][phase] for record in records)
            for phase in records[0]["seconds"]
        },
    }


def random_t5(folder: Path) -> str:
    """T5-small's shape with random weights and SmolLM2's tokenizer."""
    tokenizer = load_backbone(resolve_model("smollm2-135m"), layers=1).tokenizer
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def main() -> None:
    """Read the arguments; measure; print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", help="run folder of e2urec train")
    parser.add_argument(
        "--retrained", action="append", default=[], help="run folder of a retrained model; repeat"
    )
    parser.add_argument("--backbone", choices=["smollm2", "t5"], help="instead of --original")
    parser.add_argument(
        "--levers", action="store_true", help="our default with each lever off in turn, and no more"
    )
    parser.add_argument("--only", action="append", help="a variant to run, and no others; repeat")
    parser.add_argument(
        "--ratio", type=float, action="append", help="share of users to forget; repeat"
    )
    parser.add_argument("--rounds", type=int, default=1, help="runs of each variant, interleaved")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--ask", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        measure(given.ask, given.out)
        return
    if bool(given.original) == bool(given.backbone):
        parser.error("give either --original or --backbone")
    with tempfile.TemporaryDirectory() as folder:
        base = (
            ""
            if given.original
            else random_t5(Path(folder))
            if given.backbone == "t5"
            else "smollm2-135m"
        )
        common = {"original": given.original, "backbone": base}
        chosen = LEVERS if given.levers else VARIANTS
        ratios = given.ratio or ([0.2] if given.levers or given.backbone else [0.2, 0.03])
        quality = (
            Quality(given.original, given.retrained, 0.2)
            if given.retrained and ratios[0] == 0.2
            else None
        )
        kept: dict[tuple[str, float], list[dict[str, Any]]] = {}
        for _ in range(given.rounds):
            for ratio in ratios:
                for name, variant in chosen.items():
                    wanted = (
                        name in given.only
                        if given.only
                        else given.levers or ratio == 0.2 or name in SMALL
                    )
                    if wanted and (given.original or name != "retrain"):
                        ask = (
                            common
                            | variant
                            | {"variant": name, "ratio": ratio, "scored": bool(quality)}
                        )
                        if (
                            given.backbone
                        ):  # a model that was never tuned: no α could be found on it
                            ask["settings"] = variant.get("settings", {}) | {"alpha": 2.0}
                        kept.setdefault((name, ratio), []).append(run(ask))
    found = {key: summary(records) for key, records in kept.items()}
    report = levers(found, quality) if given.levers or given.only else ratios_of(found, quality)
    if given.json:
        print(json.dumps(report))
    else:
        show(report)


def ratios_of(
    found: dict[tuple[str, float], dict[str, Any]], quality: Quality | None
) -> dict[str, Any]:
    """The figures that the README and docs/evidence/performance.md quote."""
    large = {name: record for (name, ratio), record in found.items() if ratio == 0.2}
    small = {name: record for (name, ratio), record in found.items() if ratio == 0.03}
    scored = quality(large) if quality else {}
    published, same, everything = (large[name] for name in ("published", "same_precision", "all"))

    def against(ours: dict[str, Any]) -> dict[str, Any]:
        return {
            "speedup": published["total"] / ours["total"],
            "memory_ratio": ours["bytes"] / published["bytes"],
        }

    total = sum(PASSES.values())
    default = SETTINGS.augment_passes + SETTINGS.warmup + SETTINGS.joint + SETTINGS.final
    enough = (
        not scored
        or scored["default"]["memory_auc"]["value"] <= scored["published"]["memory_auc"]["high"]
    )
    report: dict[str, Any] = {
        "same_precision": against(same),
        "all": against(everything),
        "retrain_speedup": {
            f"{ratio:.2f}": part["retrain"]["total"] / part["default"]["total"]
            for ratio, part in ((0.2, large), (0.03, small))
            if "retrain" in part
        },
        "passes": {"published": total, "ours": total, "min_steps": default if enough else None},
        "variants": {
            f"{name}, {ratio:.0%}": plain(record) for (name, ratio), record in found.items()
        },
        "quality": scored,
    }
    for name, variant in (("published", "published"), ("ours", "all")):
        for measure in ("memory_auc", "auc"):
            report["all"][f"{measure}_{name}"] = (
                scored[variant][measure]["value"] if scored else None
            )
    return report


def levers(
    found: dict[tuple[str, float], dict[str, Any]], quality: Quality | None
) -> dict[str, Any]:
    """How much slower, and larger, our default is without each lever."""
    records = {f"{name}, {ratio:.0%}": record for (name, ratio), record in found.items()}
    whole = next(iter(records.values()))
    return {
        "levers": {
            name: {
                "slower": record["total"] / whole["total"],
                "larger": record["bytes"] / whole["bytes"],
            }
            for name, record in records.items()
        },
        "variants": {name: plain(record) for name, record in records.items()},
        "quality": quality({name: record for name, record in records.items() if "20%" in name})
        if quality
        else {},
    }


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its answers."""
    return {name: value for name, value in record.items() if name != "odds"}


def show(report: dict[str, Any]) -> None:
    """Print a report as indented JSON without what a table cannot hold: figures first."""
    for name, record in report["variants"].items():
        phases = ", ".join(f"{phase} {value:.1f}" for phase, value in record["seconds"].items())
        scored = report["quality"].get(name, report["quality"].get(name.removesuffix(", 20%"), {}))
        told = "; ".join(
            f"{key} {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            for key, row in scored.items()
        )
        print(
            f"{name:45} {record['total']:7.1f} s {record['bytes'] / 1e6:6.0f} MB   {told}\n    {phases}"
        )
    rest = {key: value for key, value in report.items() if key not in ("variants", "quality")}
    print(json.dumps(rest, indent=2))


if __name__ == "__main__":
    main()
