"""What commands print: tables and sentences, or one JSON object."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..api.export import Export
from ..api.prepare import Preparation
from ..api.request import UNCHANGED
from ..api.unlearn import DryRun
from ..core.contents import RESTORE
from ..core.reading import damaged, read_object
from ..core.say import minutes_text
from ..evaluation.comparison import Comparison
from ..evaluation.demonstration import Demonstration
from ..evaluation.disclosure import outcome_record
from ..evaluation.results import Results
from ..experiments.comparison.estimate import Estimate
from ..report.page import sheets
from ..report.summary import caption, headings, label, summary
from ..report.tables import Sheet, number
from ..runs.files import finite
from ..runs.folder import Run
from ..runs.keys import key_at_hand
from ..runs.record import RESULTS, record_state
from ..runs.record_mac import MacState
from ..runs.swaps import SwapRecord
from .failures import one_line
from .progress import progress
from .run_sentences import removed_sentence, run_sentences

__all__ = ["progress"]

PREFIX_CACHE = {
    "reset": "reset",
    "unconfirmed": "reset, though this version of vLLM does not say whether it did it",
    "off": "the server has none",
    "not offered": "not reset, since the server does not offer it; no name leads to what is in it",
}
"""What became of the states of prompts, by `SwapRecord.prefix_cache`."""


def show_run(run: Run, *, as_json: bool, key: Path | None = None) -> None:
    """What a run is, from what it was made, and how it scored.

    Args:
        run: the run.
        as_json: whether all of it is one object.
        key: file of the controller's key; see `runs.keys.key_at_hand`.

    Raises:
        RunError: the results are not what a run of ours has.
    """
    path = run.path / RESULTS
    results = read_object(path, RESTORE)
    secret = key_at_hand(key)
    mac = record_state(run.path, secret)
    if as_json:
        plain = run.record.model_dump(mode="json", exclude_none=True)
        print_json(
            {"path": str(run.path), "run": plain, "mac": mac.name.lower(), "results": results}
        )
        return
    try:
        # Under another key nothing can be said of the rehearsal either.
        holder = secret if mac is MacState.HOLDS else None
        sentences = [*run_sentences(run, results.get("rows", {}), holder), mac.value]
        _show_run(run, results, sentences)
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise damaged(path, RESTORE) from error


def _show_run(run: Run, results: dict[str, Any], sentences: Iterable[str]) -> None:
    record = run.record
    console = Console()
    say = speaker(console)
    console.print(f"[bold]{run.path}[/]: {record.kind}, seed {record.seed}", highlight=False)
    for sentence in sentences:
        say(sentence)
    _show_scores(console, results)
    for sentence in results.get("import", {}).get("sentences", []):
        say(sentence)
    # Every bound that was hit, and what is estimated to be left.
    for sentence in results.get("outcome", {}).get("sentences", []):
        say(sentence)
    if record.seconds:
        _show_seconds(console, record.seconds)


# Measure and column of each figure that `show` tells.
SCORES = {
    ("utility", "auc"): "AUC",
    ("utility", "gauc"): "AUC in\nusers",
    ("utility", "accuracy"): "accu-\nracy",
    ("utility", "log_loss"): "log\nloss",
    ("utility", "ece"): "ECE",
}
FORGET_SCORES = {
    ("forget_set", "forget_auc"): "AUC\non D_f",
    ("forget_set", "forget_log_loss"): "loss\non D_f",
}


def _show_scores(console: Console, results: Mapping[str, Any]) -> None:
    """Utility on test rows and, after a request, what is left on D_f."""
    # The demo's results stand beside its costs, a run's own at the top.
    measures = results.get("results", results)
    models = measures.get("utility", {})
    if not models:
        return
    columns = dict(SCORES)
    title = "Utility on test rows"
    # Before any request nobody is forgotten, and D_f is empty; figures on few rows are left out.
    if results.get("rows", {}).get("forget") and "forget_set" in measures:
        columns |= FORGET_SCORES
        title += ", and what is left on D_f"
    table = new_table(title, columns.values())
    for model in models:
        figures = [measures[measure][model][column] for measure, column in columns]
        # Rows of one class have no AUC, and JSON has null for it.
        table.add_row(model, *(number(figure["value"], 3) for figure in figures))
    console.print(table)


def show_dry_run(plan: DryRun, *, as_json: bool) -> None:
    """Rows that would go, and what it would take."""
    if as_json:
        print_json(plan.as_dict())
        return
    say = speaker(Console())
    rows = plan.rows
    if plan.rehearsal is not None:
        say(plan.rehearsal.sentence())
    say(removed_sentence(rows, "would go", "would be forgotten"))
    if not rows["forget"]:
        say(UNCHANGED)
    later = rows["later"]
    later_rows = "1 later row leaves" if later == 1 else f"{later:,} later rows leave"
    say(f"{rows['retain']:,} rows stay; {later_rows} validation and test")
    for phase, count in plan.phases.items():
        if count:
            say(f"  {phase}: reads {count:,} rows")
    if plan.minutes:
        say(f"about {minutes_text(plan.minutes)}, at the speed the original was trained")
    say("Nothing was changed.")


def show_preparation(plan: Preparation, *, as_json: bool) -> None:
    """What making out-of-fold scores would take."""
    if as_json:
        print_json(vars(plan))
        return
    say = speaker(Console())
    say(f"{plan.models} half models would read {plan.rows:,} rows")
    if plan.minutes:
        say(f"at most about {minutes_text(plan.minutes)}, at the speed the original was trained")
    say("Nothing was changed.")


def show_export(result: Export, *, as_json: bool) -> None:
    """What was given back, and what whoever serves it should know."""
    if as_json:
        print_json(result.as_dict())
        return
    say = speaker(Console())
    say(f"{result.path}: {result.form}, {result.dtype}")
    for sentence in result.sentences:
        say(sentence)


def show_swap(record: SwapRecord, *, as_json: bool) -> None:
    """What a server serves now, and how it was seen to be the run's adapter."""
    if as_json:
        print_json(record.model_dump(mode="json", exclude_none=True))
        return
    say = speaker(Console())
    say(one_line(record.sentence()))
    say(
        f"log-probabilities of the answers on {record.rows} rows: within "
        f"{record.largest_difference:.3g} of the run's own ({record.tolerance:g} is allowed)"
    )
    if record.old_difference is not None:
        say(f"the same of the adapter that went: within {record.old_difference:.3g}")
    if record.seconds_without_alias is not None:
        say(f"'{record.alias}' was answered by nothing for {record.seconds_without_alias:.2f} s")
    say(f"prefix cache: {PREFIX_CACHE[record.prefix_cache]}")
    say(one_line(f"the server lists: {', '.join(model.name for model in record.after)}"))


def show_results(results: Results, *, as_json: bool) -> None:
    """Tables of an evaluation, and the verdicts."""
    if as_json:
        print_json(results.as_dict())
        return
    console = Console()
    for sheet in sheets(results, between="\n").values():
        console.print(_from_sheet(sheet))
        if sheet.note:
            console.print(sheet.note, highlight=False, markup=False)
    if results.left_out:
        console.print(results.left_out, highlight=False)
    for role, verdict in results.verdicts.items():
        outcome = f"[bold]{verdict.outcome}[/] {role.title}: {verdict.reason}"
        console.print(outcome, highlight=False)
    if any(verdict.basis == "shadows" for verdict in results.verdicts.values()):
        console.print(
            "M_auc of this verdict is measured against unseen users and shadow models: none was "
            "retrained."
        )


def show_comparison(comparison: Comparison, out: Path, *, as_json: bool) -> None:
    """The summary of a comparison, and where its page is."""
    if as_json:
        print_json(comparison.as_dict())
        return
    console = Console()
    columns = [column for column in headings(comparison) if column.narrow]
    titles = [column.title.replace("AUC − ", "AUC −\n") for column in columns]
    table = new_table("Methods by what is left of D_f", [*titles, "verdict"])
    for line in summary(comparison):
        cells = [line.cell(column, "\n").replace(" [", "\n[") for column in columns]
        verdicts = "\n".join(dict.fromkeys(line.verdicts)) or "–"
        table.add_row(label(comparison, line), *cells, verdicts)
    console.print(table)
    console.print(caption(comparison), highlight=False)
    for key, reason in comparison.failed.items():
        console.print(f"[bold]not made[/] {key}: {reason}", highlight=False)
    page = out / "report.html"
    console.print(f"A page with plots: [bold]{page}[/]; tables beside it", highlight=False)


def show_estimate(estimate: Estimate, *, as_json: bool) -> None:
    """Rows by part, and hours."""
    if as_json:
        print_json(vars(estimate))
        return
    console = Console()
    table = new_table(f"{estimate.cells} cells", ("rows read",), first="part")
    for part, rows in estimate.rows.items():
        table.add_row(part, f"{rows:,}")
    console.print(table)
    at_once = "" if estimate.jobs == 1 else f", {estimate.jobs} jobs at once"
    hours = f"about {estimate.hours:.2f} hours on this machine{at_once}; nothing was started"
    console.print(hours, highlight=False)


def show_demo(demonstration: Demonstration, out: Path, *, as_json: bool) -> None:
    """Tables of the demo, and where its page is."""
    if as_json:
        print_json(demonstration.as_dict())
        return
    show_results(demonstration.results, as_json=False)
    console = Console()
    say = speaker(console)
    _show_parts(console, demonstration)
    trainable = demonstration.trainable_parameters
    total = demonstration.total_parameters
    say(f"{trainable:,} of {total:,} parameters moved ({trainable / total:.2%})")
    retraining = demonstration.seconds["retrained"]
    # Its share of a retraining is what a request saves.
    if retraining:
        share = demonstration.seconds["unlearning"] / retraining
        say(f"forgetting took {share:.0%} of a retraining")
    outcome = outcome_record(demonstration.outcome, demonstration.rows["forget"])
    for sentence in outcome["sentences"]:
        say(sentence)
    if demonstration.shortage:
        say(demonstration.shortage)
    console.print(f"A page with plots: [bold]{out / 'report.html'}[/]", highlight=False)


def _show_parts(console: Console, demonstration: Demonstration) -> None:
    """Where the time of the demo went, and that of unlearning inside."""
    total = demonstration.seconds["total"]
    table = new_table(f"Where {total:.0f} s went", ("seconds", "share"), first="part")
    for part, value in demonstration.seconds_by_part.items():
        table.add_row(part, f"{value:.1f}", f"{value / total:.0%}")
    console.print(table)
    phases = {f"of unlearning: {phase}": value for phase, value in demonstration.phases.items()}
    # It has a line of its own above.
    phases.pop("of unlearning: logging", None)
    _show_seconds(console, phases)


def _show_seconds(console: Console, seconds: Mapping[str, float]) -> None:
    table = new_table("Seconds", ("",), show_header=False)
    for phase, value in seconds.items():
        table.add_row(phase, f"{value:.1f}")
    console.print(table)


# Headings are broken once, so that eight columns of figures fit into 80.
def _from_sheet(sheet: Sheet) -> Table:
    titles = [heading.replace(" ", "\n", 1) for heading in sheet.headings]
    table = new_table(sheet.title, titles, first=sheet.first)
    for line in sheet.lines:
        table.add_row(line.label, *line.cells)
    return table


def new_table(title: str, headings: Iterable[str], first: str = "model", **options: Any) -> Table:
    """A table of figures that fits into 80 columns."""
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        **options,
    )
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def speaker(console: Console) -> Any:
    """Print a sentence as it is, without colours."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    return say


def print_json(value: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(finite(value)))
