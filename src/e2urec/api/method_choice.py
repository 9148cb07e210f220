"""The method of a request, in the settings that suit its run where the user sets none."""

from collections.abc import Mapping
from typing import Any

from ..core.say import Say, no_words
from ..methods import build, suited_preset
from ..runs.folder import Run
from ..runs.keys import key_at_hand
from ..runs.rehearsal import read_rehearsal
from ..runs.score_index import FILE
from ..unlearning.method import Method
from .request import RequestOptions


def choose_method(
    run: Run,
    name: str,
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    options: RequestOptions | None = None,
    *,
    say: Say = no_words,
) -> Method:
    """A method for a request to `run`.

    A preset that is named wins. Without one, and without settings, those count that a rehearsal of
    the run chose for requests of users. Otherwise the run decides: where it has out-of-fold scores,
    `e2urec` learns from them.

    Args:
        run: to which the request will be put.
        name: of the method.
        settings: on top of the preset.
        preset: of the method; None: the one that suits the run.
        options: the request. Without it, no rehearsal is asked.
        say: told which preset was chosen, where it is not the default.

    Raises:
        ConfigError: unknown method, preset or setting, or a value out of range.
        RunError: the rehearsal is damaged, or another run's.
        DataError: the request cannot be read.
    """
    if preset is not None:
        return build(name, settings, preset)
    if not settings and options is not None:
        rehearsed = _rehearsed_method(run, name, options)
        if rehearsed is not None:
            return rehearsed
    has_scores = (run.path / FILE).exists()
    preset = suited_preset(name, settings, has_scores=has_scores)
    if preset != "default":
        say(
            f"method {name}: preset {preset}, since the run has out-of-fold scores; --preset "
            "default does without"
        )
    return build(name, settings, preset)


def _rehearsed_method(run: Run, name: str, options: RequestOptions) -> Method | None:
    """A method in the settings that the rehearsal of `run` chose; None where it chose none."""
    # It chose for requests of users, and for no others.
    if not options.is_of_users(run):
        return None
    rehearsal = read_rehearsal(run, key_at_hand(options.key))
    if rehearsal is None or rehearsal.chosen is None or rehearsal.method != name:
        return None
    return build(name, rehearsal.trials[rehearsal.chosen].settings)
