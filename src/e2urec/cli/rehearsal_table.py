"""What a rehearsal found, on the terminal."""

import json
from collections.abc import Mapping

from rich.console import Console

from ..runs.files import finite
from ..runs.rehearsal import Rehearsal
from .terminal import new_table, speaker

# Name of each figure that the terminal shows; the file has all.
FIGURES = {
    "memory_auc": "M_auc",
    "memory_within": "M_auc within requests",
    "alignment": "alignment, of its ceiling",
    "correlation": "alignment",
    "retained_memory": "retained memory",
    "test_auc_to_original": "test AUC − original's",
    "test_auc_to_retrained": "test AUC − retrained's",
}


def show_rehearsal(rehearsal: Rehearsal, *, as_json: bool) -> None:
    """The pooled figures of each candidate, and the choice."""
    if as_json:
        print(json.dumps(finite(rehearsal.model_dump(mode="json"))))
        return
    console = Console()
    say = speaker(console)
    say(
        f"{rehearsal.requests}, {rehearsal.rows} rows in all, against {rehearsal.retrained} "
        "retrained without them"
    )
    for place, trial in enumerate(rehearsal.trials):
        mark = ", chosen" if place == rehearsal.chosen else ""
        table = new_table(
            f"{rehearsal.method}, candidate {place + 1}{mark}", ["pooled, with 95% interval"]
        )
        for name, label in FIGURES.items():
            if name in trial.figures:
                table.add_row(label, str(trial.figures[name]))
        table.add_row("seconds a request", f"{trial.seconds:.1f}")
        console.print(table)
        say(f"settings: {_settings(rehearsal, place)}")
    say(_choice(rehearsal))


def _settings(rehearsal: Rehearsal, place: int) -> str:
    """What tells a candidate from the others; of one alone there is nothing to tell."""
    own = rehearsal.trials[place].settings
    others = [trial.settings for trial in rehearsal.trials]
    texts = []
    for key, value in own.items():
        if any(settings[key] != value for settings in others):
            texts.append(f"{key}={_text(value)}")
    return ", ".join(texts) or "as given"


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def _choice(rehearsal: Rehearsal) -> str:
    if rehearsal.chosen is not None:
        return (
            f"candidate {rehearsal.chosen + 1} is kept as the settings of unlearn --method "
            f"{rehearsal.method} on this run, where none are set"
        )
    return (
        "no candidate is chosen: none has a bounded M_auc and a test AUC surely within "
        f"{rehearsal.tolerance:g} of the retrained models'; rehearse more often (--times), keep "
        "more test rows (data.test_rows), or allow more (--tolerance)"
    )
