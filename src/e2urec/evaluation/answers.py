"""What models say of the rows they are asked about.

Models answer one after another, and everything later is computed from their answers. So no two
models need to be in memory at once, and a model may be asked before it is changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..core.arrays import Floats, Head
from ..metrics.classification import temperature
from ..models.batches import Examples
from ..models.precision import Precision
from ..models.predictions import NO_HEAD, Predictions, complete_log_odds, predict
from ..models.recommender import Recommender


@dataclass(frozen=True)
class Answers:
    """One model's answers.

    Attributes:
        test: to the test rows.
        forget: to D_f.
        unseen: to the rows of users on whom no model was tuned, and nothing was chosen.
        valid: to the validation rows; None where nobody will fit a temperature on them.
        retain: to a sample of D_r; None where there is no request yet.
        rewritten: to the old prompts of rewritten rows; None where there are none.
    """

    test: Predictions
    forget: Predictions
    unseen: Predictions
    valid: Predictions | None = None
    retain: Predictions | None = None
    rewritten: Predictions | None = None

    def parts(self) -> dict[str, Predictions]:
        """The answers by set of rows."""
        return {name: part for name, part in vars(self).items() if part is not None}

    def with_head(self, head: Head) -> "Answers":
        """The same with an output head that is equal to the one of the states."""
        return replace(self, forget=replace(self.forget, head=head))


@dataclass(frozen=True)
class EvaluationSets:
    """The rows that models are asked about; see `Answers`."""

    test: Examples
    forget: Examples
    unseen: Examples
    valid: Examples
    retain: Examples | None = None
    rewritten: Examples | None = None

    # All sets in one call: a model is in memory once, and is asked everything while it is.
    def ask(
        self,
        model: Recommender,
        *,
        precision: Precision = "auto",
        valid: bool = False,
        log_odds: Mapping[str, Floats] | None = None,
    ) -> Answers:
        """The model's answers.

        Args:
            model: the model.
            precision: in which it computes.
            valid: whether it is asked about validation rows as well.
            log_odds: of this model that are at hand, by set of rows (not D_f); NaN where a row has
                none.
        """
        present_odds = log_odds or {}
        answers = {}
        for name, rows in vars(self).items():
            if rows is None or (name == "valid" and not valid):
                continue
            if name in present_odds:
                odds = complete_log_odds(model, rows, present_odds[name], precision=precision)
                answers[name] = Predictions(None, NO_HEAD, odds, rows.labels, rows.users)
                continue
            # Distances over the vocabulary are measured on D_f alone.
            answers[name] = predict(model, rows, precision=precision, states=name == "forget")
        return Answers(**answers)


def softened(original: Answers) -> Answers:
    """Placebo (i): the original with the temperature that fits the validation rows best.

    Its ranking is the original's. Only the two answers are softened, not the whole vocabulary, so
    it has distances over {Yes, No} alone.
    """
    # Fitted on validation rows, as it would be in production: test rows must not help the placebo.
    assert original.valid is not None, "a temperature is fitted on answers to validation rows"
    fitted = temperature(original.valid.labels, original.valid.log_odds)

    def soften(rows: Predictions) -> Predictions:
        odds = rows.log_odds / fitted
        return replace(rows, hidden=None, log_odds=odds)

    parts = {name: soften(rows) for name, rows in original.parts().items()}
    return Answers(**parts)
