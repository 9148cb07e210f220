"""The errors that a user can cause.

    E2URecError       the input, the request or the machine is at fault; exit status 2
      · DataError     a table, a row of it, a prompt template, or a request for erasure
      · ConfigError   a setting
          · DivergenceError  a learning rate, as training shows
          · ScoresError      half models that make no out-of-fold scores
      · ModelError    a model or a tokenizer
      · RunError      a run folder, or the cache
          · NoRoomError      a disk that is too full for what would come next
      · ServerError   a server that models are served by

Every message is one line that says the value, the place and the remedy, in this order:
`ratings.csv row 2: rating 7.0 is outside 1..5; correct the row`. It never quotes a user's id or a
prompt that the user did not pass in.

Any other exception is a bug of ours; `assert` guards against those.
"""

from difflib import get_close_matches


class E2URecError(Exception):
    """Base of all errors that the input, the request or the machine causes; exit status 2."""


class DataError(E2URecError):
    """A table, a row of it, or a request for erasure cannot be used."""


class ConfigError(E2URecError):
    """A setting is unknown, of the wrong type, or out of its range."""


class DivergenceError(ConfigError):
    """Training came to a loss that is not finite, so its learning rate is too high."""


class ScoresError(ConfigError):
    """Half models diverged or have no rows, so that there are no out-of-fold scores."""


class ModelError(E2URecError):
    """A model or a tokenizer cannot serve as a recommender."""


class RunError(E2URecError):
    """A run folder is missing, partial, locked, damaged or in the way."""


class NoRoomError(RunError):
    """A disk has no room for what would be written next."""


class ServerError(E2URecError):
    """A server cannot be reached, refuses, or does not answer as it should."""


def did_you_mean(word: str, vocabulary: list[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest word of `vocabulary`, else `"; known: a, b"`."""
    # At 0.5 'wieght' still finds 'weight', and a word that has nothing to do with any finds none.
    nearest = get_close_matches(word, vocabulary, n=1, cutoff=0.5)
    if nearest:
        return f"; did you mean '{nearest[0]}'?"
    return f"; known: {', '.join(sorted(vocabulary))}"
