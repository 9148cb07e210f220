"""How fast and how large: the published algorithm, E2URec with and without its speed, retraining.

    python benchmarks/unlearning.py --original RUN --retrained RUN --retrained RUN [--json]

The headline is against the published algorithm at its released passes. With `--json`, the output is
what docs/figures.json holds and docs/draw_result.py draws.

`RUN`s are run folders of `e2urec train` and `e2urec unlearn --method retrain`. What the original's
run keeps once for all requests, its answers and out-of-fold scores, is at hand as it is for
`e2urec unlearn`. With retrained models of the recipe's own request, M_auc is measured as well.
`--backbone smollm2` (all 30 blocks) and `t5` (T5-small's shape, random weights) need no run: they
measure speed and memory alone, on fewer rows, at α = 2. Every variant runs in a process of its own,
in turn, `--rounds` times. Loading the model is timed apart. Memory is the peak of the resident set
less its size after imports.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from common import add_json, add_original, interval_text, option_parser
from e2urec.experiments.packaged import resolve_model
from e2urec.models.backbone import load_backbone
from e2urec.runs.score_index import FILE as SCORES_FILE
from one_variant import Job, Measurement, measure_apart
from unlearning_report import (
    LARGE,
    SINGLE,
    SMALL,
    Measurements,
    Quality,
    full_report,
    levers_report,
)
from variants import (
    GAIN,
    LEVERS,
    RELEASED_PASSES,
    RETRAIN,
    SCORES,
    SMALL_VARIANTS,
    UNTUNED_ALPHA,
    VARIANTS,
    Variant,
)

SMOLLM2 = "smollm2-135m"

# --- measuring


@contextlib.contextmanager
def backbone_of(name: str | None) -> Iterator[str]:
    """Yield the packaged name or the folder of a backbone; empty where none was chosen."""
    if name == "t5":
        with tempfile.TemporaryDirectory() as folder:
            write_random_t5(Path(folder))
            yield folder
    elif name == "smollm2":
        yield SMOLLM2
    else:
        yield ""


def write_random_t5(folder: Path) -> None:
    """Write T5-small's shape with random weights and SmolLM2's tokenizer."""
    tokenizer = load_backbone(resolve_model(SMOLLM2), layers=1).tokenizer
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
    # Transformers draws the weights from the global generator.
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def jobs_of(arguments: argparse.Namespace, backbone: str, *, scored: bool) -> list[Job]:
    """The jobs of one round, in order."""
    jobs = []
    variants = LEVERS if arguments.levers else VARIANTS
    for ratio in arguments.ratio:
        for name, variant in variants.items():
            if not is_wanted(arguments, name, ratio):
                continue
            job = Job(
                variant=name,
                method=variant.method,
                settings=settings_of(variant, untuned=bool(backbone)),
                precision=variant.precision,
                original=str(arguments.original) if arguments.original else None,
                backbone=backbone,
                ratio=ratio,
                scored=scored,
            )
            jobs.append(job)
    return jobs


def is_wanted(arguments: argparse.Namespace, name: str, ratio: float) -> bool:
    """Whether a variant is run on a share of the users."""
    # A backbone as it comes was never tuned, so there is nothing to tune again.
    if name == RETRAIN and not arguments.original:
        return False
    if name == SCORES and not has_scores(arguments.original):
        return False
    if arguments.only:
        return name in arguments.only
    if arguments.levers:
        return True
    return ratio == LARGE or name in SMALL_VARIANTS


def has_scores(original: Path | None) -> bool:
    """Whether there is a run that keeps out-of-fold scores."""
    return original is not None and (original / SCORES_FILE).exists()


def settings_of(variant: Variant, *, untuned: bool) -> dict[str, Any]:
    """The method's settings, with a fixed α where one is read and none can be found."""
    settings = dict(variant.settings)
    if untuned and settings.get("forgetting") == GAIN:
        settings["alpha"] = UNTUNED_ALPHA
    return settings


def measure(jobs: Sequence[Job], rounds: int) -> Measurements:
    """Run all jobs so many times, interleaved; the median of each."""
    measurements: dict[tuple[str, float], list[Measurement]] = {}
    for _ in range(rounds):
        for job in jobs:
            key = (job.variant, job.ratio)
            measurements.setdefault(key, []).append(measure_apart(job))
    return {key: median(repeats) for key, repeats in measurements.items()}


def median(repeats: Sequence[Measurement]) -> Measurement:
    """The median of seconds and of bytes over the repeats, and the answers of the first."""
    first = repeats[0]
    seconds = {}
    for phase in first.seconds:
        seconds[phase] = statistics.median(repeat.seconds[phase] for repeat in repeats)
    return replace(
        first,
        seconds=seconds,
        total=statistics.median(repeat.total for repeat in repeats),
        bytes=statistics.median(repeat.bytes for repeat in repeats),
    )


# --- the command line


def show(report: Mapping[str, Any]) -> None:
    """Print the headline, two lines a variant, and the rest as indented JSON."""
    for line in headline_lines(report):
        print(line)
    quality = report["quality"]
    for title, record in report["variants"].items():
        # Reports name variants with the share of users or, where it is always the same, without.
        short_title = title.removesuffix(", 20%")
        figures = quality.get(title) or quality.get(short_title) or {}
        texts = [f"{key} {interval_text(figure, 3)}" for key, figure in figures.items()]
        megabytes = record["bytes"] / 1e6
        print(f"{title:45} {record['total']:7.1f} s {megabytes:6.0f} MB   {'; '.join(texts)}")
        phases = [f"{phase} {value:.1f}" for phase, value in record["seconds"].items()]
        print(f"    {', '.join(phases)}")
    printed = ("headline", "variants", "quality")
    rest = {key: value for key, value in report.items() if key not in printed}
    print(json.dumps(rest, indent=2))


def headline_lines(report: Mapping[str, Any]) -> list[str]:
    """What the README says first: how ours compares at the released passes."""
    if not report.get("headline"):
        return []
    passes = ", ".join(f"{name} {count:g}" for name, count in RELEASED_PASSES.items())
    lines = [f"Against the published algorithm at its released passes over D_f ({passes}):"]
    for name, figures in report["headline"].items():
        speedup = figures["speedup"]
        memory = figures["memory_ratio"]
        lines.append(f"  {name}: {speedup:.1f} times as fast, {memory:.2f} of the memory")
    return lines


def options() -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    add_original(parser, required=False)
    parser.add_argument(
        "--retrained",
        type=Path,
        action="append",
        default=[],
        help="run folder of a retrained model; repeat",
    )
    parser.add_argument("--backbone", choices=["smollm2", "t5"], help="instead of --original")
    parser.add_argument(
        "--levers", action="store_true", help="the default with each lever off in turn, and no more"
    )
    parser.add_argument("--only", action="append", help="a variant to run, and no others; repeat")
    parser.add_argument(
        "--ratio", type=float, action="append", help="share of users to forget; repeat"
    )
    parser.add_argument("--rounds", type=int, default=1, help="runs of each variant, interleaved")
    add_json(parser)
    arguments = parser.parse_args()
    if bool(arguments.original) == bool(arguments.backbone):
        parser.error("give either --original or --backbone")
    if not arguments.ratio:
        # A small request is of interest beside the large one, and costs little.
        has_small = arguments.original and not arguments.levers
        arguments.ratio = [LARGE, SMALL, SINGLE] if has_small else [LARGE]
    return arguments


def main() -> None:
    """Read the arguments; measure; print."""
    arguments = options()
    quality = None
    if arguments.retrained and arguments.ratio[0] == LARGE:
        quality = Quality(arguments.original, arguments.retrained, LARGE)
    with backbone_of(arguments.backbone) as backbone:
        jobs = jobs_of(arguments, backbone, scored=quality is not None)
        measurements = measure(jobs, arguments.rounds)
    if arguments.levers:
        report = levers_report(measurements, quality)
    else:
        report = full_report(measurements, quality)
    report["rounds"] = arguments.rounds
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
