"""The one evaluation: every measure whose needs are met, and a verdict on every candidate."""

from .evidence import Evidence
from .judgement import verdicts
from .measures import all_measures
from .results import Results
from .roles import in_order


def evaluate(evidence: Evidence) -> Results:
    """Measure the candidates between the original (nothing done) and the retrained models.

    Without retrained models, memory and distances are left out; with one, the noise floor is.
    """
    tables = {}
    for measure in all_measures():
        if measure.needs.met_by(evidence):
            tables[measure.name] = measure.table(evidence)
    return Results(tables, tuple(in_order(evidence.models)), verdicts(evidence))
