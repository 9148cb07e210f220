"""The errors a user can cause, each one line: the value, the place, the remedy.

Anything that is not an `E2URecError` is a bug of ours; `assert` guards those.
"""


class E2URecError(Exception):
    """Base of all errors that the input, the request or the machine causes; exit status 2."""


class DataError(E2URecError):
    """A table, a row of it, or a request for erasure cannot be used."""


class ConfigError(E2URecError):
    """A setting is unknown, of the wrong type, or out of its range."""


class ModelError(E2URecError):
    """A model or a tokenizer cannot serve as a recommender."""


class RunError(E2URecError):
    """A run folder is missing, partial, locked, damaged or in the way."""


def did_you_mean(word: str, known: list[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known word, else `"; known: a, b"`."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(sorted(known))}"
