"""What a rehearsal found, on the terminal."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

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
    models = "1 model" if rehearsal.retrained == 1 else f"{rehearsal.retrained} models"
    say(f"{rehearsal.requests}, {rehearsal.rows} rows, against {models} retrained without them")
    for place, trial in enumerate(rehearsal.trials):
        mark = ", chosen" if place == rehearsal.chosen else ""
        title = f"{rehearsal.method}, candidate {place + 1}{mark}"
        table = new_table(title, ["pooled, with 95% interval"], first="figure")
        for name, label in FIGURES.items():
            if name in trial.figures:
                table.add_row(label, str(trial.figures[name]))
        table.add_row("seconds of a request", f"{trial.seconds:.1f}")
        table.add_row("seconds of a retraining", f"{rehearsal.retraining_seconds:.1f}")
        console.print(table)
        say(f"settings: {_settings(rehearsal, place)}")
    say(_choice(rehearsal))


def _settings(rehearsal: Rehearsal, place: int) -> str:
    """What tells a candidate from the others; of one alone there is nothing to tell."""
    settings = [dict(_flat(trial.settings)) for trial in rehearsal.trials]
    texts = []
    for key, value in settings[place].items():
        if any(other.get(key) != value for other in settings):
            texts.append(f"{key}={value}")
    return ", ".join(texts) or "as given"


def _flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by the names that `--set` has for them, such as `lora.rank`."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _choice(rehearsal: Rehearsal) -> str:
    if rehearsal.chosen is not None:
        text = (
            f"candidate {rehearsal.chosen + 1} is kept as the settings of unlearn --method "
            f"{rehearsal.method} on this run, where none are set"
        )
        if len(rehearsal.trials) > 1:
            text += (
                "; the best of several looks better than it is, so rehearse it alone with another "
                "--seed before a gate rests on it"
            )
        return text
    return (
        "no candidate is chosen: none has a bounded M_auc and a test AUC surely within "
        f"{rehearsal.tolerance:g} of the retrained models'; rehearse more often (--times), keep "
        "more test rows (data.test_rows), or allow more (--tolerance)"
    )
