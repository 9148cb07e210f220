"""Tables and progress on a terminal; plain lines where there is none."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ..api import DryRun
from ..core.process import first_process
from ..data.overview import Overview
from ..evaluation.results import Comparison, Demonstration, Results, values
from ..experiments.compare import Estimate
from ..metrics.bootstrap import Interval
from ..report.comparison import CAPTION, rich_table
from ..report.names import NAMES, in_order, limits, table
from ..runs.folder import Run
from ..runs.record import finite
from ..training.loop import Progress as Told
from ..training.loop import silent


@contextlib.contextmanager
def progress() -> Iterator[Told]:
    """Yield a listener that draws one bar a phase on a terminal, or prints a line every 30 seconds."""
    if not first_process():
        yield silent
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def told(phase: str, done: int, total: int, loss: float | None = None) -> None:
            if phase not in tasks or done == 1:
                tasks[phase] = bars.add_task(phase, total=total, loss="")
            bars.update(tasks[phase], completed=done, loss="" if loss is None else f"{loss:.3f}")

        yield told


def _plain_lines(console: Console) -> Told:
    last = [time.monotonic()]

    def told(phase: str, done: int, total: int, loss: float | None = None) -> None:
        now = time.monotonic()
        if done == total or now - last[0] > 30:
            last[0] = now
            tail = "" if loss is None else f", loss {loss:.3f}"
            console.print(f"{phase}: {done} of {total}{tail}", highlight=False)

    return told


def show_run(run: Run, *, as_json: bool) -> None:
    """What a run is, from what it was made, and how it scored."""
    results = json.loads((run.path / "results.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps({"path": str(run.path), "run": run.record, "results": results}))
        return
    record, console = run.record, Console()
    console.print(f"[bold]{run.path}[/]: {record['kind']}, seed {record['seed']}", highlight=False)
    dropped = record.get("rows", {})
    for name, what in (
        ("duplicates", "exact duplicates of earlier rows"),
        ("unrated", "rows without a rating"),
    ):
        if dropped.get(f"{name}_dropped"):
            console.print(f"{dropped[f'{name}_dropped']} {what} were dropped", highlight=False)
    counts = results.get("rows", {})
    if "removed" in counts:
        console.print(_gone(counts, "went", "were forgotten"), highlight=False)
    if len(record.get("chain", [])) > 1:
        console.print(
            f"request {len(record['chain'])} of a chain: all earlier ones stay honoured",
            highlight=False,
        )
    if "method" in record:
        console.print(
            f"method {record['method']['name']}, from {record['parent']['path']}", highlight=False
        )
        console.print(
            "Still holding the forgotten data: that original, its backups, and earlier runs."
        )
    found = results["models"] if "models" in results else {"original": results.get("test", {})}
    figures = {
        name: {key: each["value"] for key, each in row.items()} for name, row in found.items()
    }
    if "original" in figures:
        console.print(_models(figures, list(figures)))
    if record.get("seconds"):
        console.print(_seconds(record["seconds"]))


def show_data(found: Overview, *, as_json: bool) -> None:
    """What data hold, and what of them will hurt."""
    if as_json:
        print(json.dumps(finite(vars(found))))
        return
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    say(
        f"{found.rows:,} rows of {found.users:,} users and {found.items:,} items, {found.since} to {found.until}"
    )
    for count, what in (
        (found.duplicates, "exact duplicates"),
        (found.unrated, "rows without a rating"),
    ):
        if count:
            say(f"{count:,} {what} were dropped")
    spread = found.rows_per_user
    say(f"rows a user: {spread['least']:g} to {spread['most']:g}, median {spread['median']:g}")
    bars = Table("rating", "rows", "", box=None)
    most = max(found.ratings.values())
    for rating, count in found.ratings.items():
        bars.add_row(rating, f"{count:,}", "█" * max(1, round(30 * count / most)))
    console.print(bars)
    say(f"liked: {found.liked:.0%}")
    say("samples: " + ", ".join(f"{name} {count:,}" for name, count in found.samples.items()))
    if found.tokens:
        say(
            "tokens a prompt: "
            + ", ".join(f"{name} {count:g}" for name, count in found.tokens.items())
        )
    for number, example in enumerate(found.examples, start=1):
        console.rule(f"example {number}", style="dim")
        say(example)
    console.rule(style="dim")
    for warning in found.warnings:
        console.print(f"[yellow]![/] {escape(warning)}", highlight=False)
    if not found.warnings:
        say("Nothing that will hurt was found.")


def _gone(rows: dict[str, int], go: str, forgotten: str) -> str:
    told = f"{rows['removed']:,} rows of {rows['removed_users']:,} users {go}; {rows['forget']:,} training prompts "
    told += forgotten
    return told + (
        f", {rows['rewritten']:,} of them written anew without what goes"
        if rows["rewritten"]
        else ""
    )


def show_dry_run(found: DryRun, *, as_json: bool) -> None:
    """Rows that would go, and what it would take."""
    if as_json:
        print(json.dumps(finite(vars(found))))
        return
    console = Console()
    rows = found.rows
    console.print(_gone(rows, "would go", "would be forgotten"), highlight=False)
    console.print(
        f"{rows['retain']} rows stay; {rows['later']} later rows leave validation and test",
        highlight=False,
    )
    for phase, count in found.phases.items():
        if count:
            console.print(f"  {phase}: reads {count} rows", highlight=False)
    if found.minutes is not None:
        console.print(
            f"about {found.minutes:.1f} minutes, at the speed the original was trained",
            highlight=False,
        )
    console.print("Nothing was changed.")


def show_results(results: Results, *, as_json: bool) -> None:
    """Tables of an evaluation."""
    if as_json:
        print(json.dumps(finite(results.as_dict())))
        return
    console = Console()
    figures = {name: values(row) for name, row in results.models.items()}
    console.print(_models(figures, in_order(figures)))
    if results.memory:
        console.print(_memory(results))
    if results.distance:
        console.print(_distance(results))
    if results.collateral.get("unlearned"):
        console.print(_collateral(results))
    if results.membership:
        console.print(_membership(results))
    for name, row in results.relearning.items():
        ratio = f", {row['ratio'].value:.2f} of a retrained model's" if "ratio" in row else ""
        console.print(
            f"Relearning D_f: {NAMES.get(name, name)} in {row['steps'].value:.0f} steps{ratio}",
            highlight=False,
        )
    for name in in_order(set(results.verdict) - {"untuned"}):
        found = results.verdict[name]
        console.print(
            f"[bold]{found.outcome}[/] {NAMES.get(name, name)}: {found.reason}", highlight=False
        )
    if any(found.basis == "shadows" for found in results.verdict.values()):
        console.print(
            "M_auc of this verdict is measured against unseen users and shadow models: none was retrained."
        )


def show_comparison(found: Comparison, out: Path, *, as_json: bool) -> None:
    """The table of a comparison, and where its page is."""
    if as_json:
        print(json.dumps(finite(found.as_dict())))
        return
    console = Console()
    console.print(rich_table(found))
    console.print(CAPTION, highlight=False)
    for key, reason in found.failed.items():
        console.print(f"[bold]not made[/] {key}: {reason}", highlight=False)
    console.print(
        f"A page with plots: [bold]{out / 'report.html'}[/]; tables beside it", highlight=False
    )


def show_estimate(found: Estimate, *, as_json: bool) -> None:
    """Rows by part, and hours."""
    if as_json:
        print(json.dumps(vars(found)))
        return
    console, shown = Console(), table(f"{found.cells} cells", ("rows read",), first="part")
    for part, rows in found.rows.items():
        shown.add_row(part, f"{rows:,}")
    console.print(shown)
    console.print(
        f"about {found.hours:.2f} hours on this machine; nothing was started", highlight=False
    )


def show_demo(found: Demonstration, out: Path) -> None:
    """Tables of the demo, and where its page is."""
    show_results(found.results, as_json=False)
    console = Console()
    console.print(_seconds(found.seconds))
    share = found.trainable_parameters / found.total_parameters
    console.print(
        f"{found.trainable_parameters:,} of {found.total_parameters:,} parameters moved ({share:.2%}); "
        f"forgetting took {found.seconds['unlearning'] / found.seconds['retrained']:.0%} of a retraining"
        if found.seconds["retrained"]
        else f"{found.trainable_parameters:,} parameters moved",
        highlight=False,
    )
    if found.skipped:
        console.print(
            f"No time for {found.skipped} more retraining: the noise floor is unknown (see recipe.minutes)."
        )
    console.print(f"A page with plots: [bold]{out / 'report.html'}[/]", highlight=False)


def _models(figures: Mapping[str, Mapping[str, float]], order: list[str]) -> Table:
    columns = {
        "auc": "AUC",
        "gauc": "AUC in\nusers",
        "accuracy": "accu-\nracy",
        "log_loss": "log\nloss",
        "ece": "ECE",
        "forget_auc": "AUC\non D_f",
        "forget_log_loss": "loss\non D_f",
    }
    shown = table("Utility on test rows, and what is left on D_f", columns.values())
    for name in order:
        shown.add_row(NAMES.get(name, name), *(_number(figures[name].get(key)) for key in columns))
    return shown


def _memory(results: Results) -> Table:
    title = "Memory of D_f, 0 = retrained, 1 = nothing done [95% over users]"
    columns = ["M_auc", "M_loss", "test AUC − original's"] + ["projection"] * bool(
        results.projection
    )
    shown = table(title, columns)
    for name, memory in results.memory.items():
        if name == "untuned":
            continue  # it never knew D_f, nor anything else
        cells = [
            interval(memory["auc"]),
            interval(memory["loss"]),
            interval(results.auc_difference[name], 3),
        ]
        if name in results.projection:
            cells.append(interval(results.projection[name]))
        shown.add_row(NAMES.get(name, name), *cells)
    return shown


def _distance(results: Results) -> Table:
    floor = "unknown" if not results.floor else f"{results.floor['js'].value:.4f}"
    title = f"Distance to the retrained models on D_f (noise floor of JS {floor})"
    shown = table(title, ("JS", "Jeffreys/2", "L2", "JS of answers", "JS beyond\nthe floor"))
    for name in in_order(results.distance):
        plain = values(results.distance[name])
        cells = [_number(plain.get(key), 4) for key in ("js", "jeffreys", "l2", "js_answers")]
        excess = results.excess.get(name, {}).get("js")
        shown.add_row(NAMES.get(name, name), *cells, interval(excess) if excess else "–")
    return shown


def _collateral(results: Results) -> Table:
    rows = results.collateral["unlearned"]
    shown = table(
        "Test rows by slice: unlearned − original [95% over users]", ("rows", "AUC", "log loss")
    )
    worst = sorted(rows, key=lambda part: rows[part]["auc"].value)
    for part in [name for name in rows if "=" not in name] + [
        name for name in worst if "=" in name
    ][:5]:
        found = rows[part]
        shown.add_row(
            part, str(found["auc"].n), interval(found["auc"], 3), interval(found["log_loss"], 3)
        )
    return shown


def _membership(results: Results) -> Table:
    titles = {
        "loss": "loss,\nby row",
        "loss_user": "loss,\nby user",
        "ratio": "ratio,\nby row",
        "ratio_user": "ratio,\nby user",
    }
    attacks = [name for name in titles if name in results.membership["original"]]
    off = [name for name in attacks if not results.at_chance(name)]
    title = "Membership attacks on D_f: AUC, 0.5 = chance"
    title += "; *: less a retrained model's, which is off chance itself" if off else ""
    shown = table(title, [titles[name] + "*" * (name in off) for name in attacks])
    for name in in_order(results.membership):
        row = results.membership[name]
        cells = (
            interval(row[attack]["auc_beyond" if attack in off else "auc"]) for attack in attacks
        )
        shown.add_row(NAMES.get(name, name), *cells)
    return shown


def _seconds(seconds: Mapping[str, float]) -> Table:
    shown = table("Seconds", ("",), show_header=False)
    for phase, value in seconds.items():
        shown.add_row(phase, f"{value:.1f}")
    return shown


def interval(found: Interval, digits: int = 2) -> str:
    """The value, and its limits on the line below."""
    return limits(found, digits, "\n")


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
