"""The method of a request, in the settings that suit its run where the user sets none."""

from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError
from ..core.say import Say, no_words
from ..methods import build, rebuild, suited_preset
from ..runs.folder import Run
from ..runs.keys import key_at_hand
from ..runs.rehearsal import read_rehearsal
from ..runs.score_index import FILE
from ..unlearning.method import Method
from .request import RequestCase, RequestOptions


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
        say: told which preset was chosen, where it is not the default, and which settings kept it
            from another.

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
    # A setting that is wrong is told alone.
    method = build(name, settings, preset)
    usual_preset = suited_preset(name, has_scores=has_scores)
    if preset != usual_preset:
        _tell_of_settings(name, settings or {}, usual_preset, has_scores, say)
    elif preset != "default":
        say(
            f"method {name}: preset {preset}, since the run has out-of-fold scores; --preset "
            "default does without"
        )
    return method


def method_for(case: RequestCase, name: str) -> Method:
    """A method for a request that names neither a preset nor a setting.

    It is what `choose_method` says, or the default preset where rows of D_f lack the scores that
    this one learns from, or one that needs no calibration users where there are none.
    """
    sentences: list[str] = []
    default = build(name)
    method = choose_method(case.parent, name, options=case.options, say=sentences.append)
    if case.has_training_rows and method != default:
        try:
            method.check_scores(case.rows.scores)
        except ConfigError as error:
            sentences = [f"{error}. Preset default is taken"]
            method = default
    if case.has_training_rows and method == default and not len(case.rows.calibration):
        preset = suited_preset(name, has_scores=False, has_strangers=False)
        if preset != "default":
            sentences.append(
                f"method {name}: preset {preset}, since no calibration users tell what tuning is "
                "worth; train with data.calibration, or import more users with --held"
            )
            method = build(name, preset=preset)
    for sentence in sentences:
        case.options.say(sentence)
    return method


def _tell_of_settings(
    name: str, settings: Mapping[str, Any], usual_preset: str, has_scores: bool, say: Say
) -> None:
    """Say which settings keep a method from its usual preset; who names the teacher knows it."""
    others = {}
    for key, value in settings.items():
        preset = suited_preset(name, {key: value}, has_scores=has_scores)
        if preset != usual_preset and "forgetting" not in settings:
            others[key] = preset
    if others:
        preset = next(iter(others.values()))
        purpose = "learn from the run's out-of-fold scores" if has_scores else "take that one"
        say(
            f"method {name}: preset {preset}, since preset {usual_preset} does not read "
            f"{', '.join(others)}; leave that out to {purpose}"
        )


def _rehearsed_method(run: Run, name: str, options: RequestOptions) -> Method | None:
    """A method in the settings that the rehearsal of `run` chose; None where it chose none."""
    # It chose for requests of users, and for no others.
    if not options.is_of_users(run):
        return None
    rehearsal = read_rehearsal(run, key_at_hand(options.key))
    if rehearsal is None or rehearsal.chosen is None or rehearsal.method != name:
        return None
    return rebuild(name, rehearsal.trials[rehearsal.chosen].settings)
