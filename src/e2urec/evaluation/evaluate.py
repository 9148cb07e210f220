"""The one evaluation: every measure whose needs are met, and a verdict on every candidate."""

from .disclosure import LEFT_OUT, disclosed_table, disclosed_verdict, is_told
from .evidence import Evidence
from .judgement import verdicts
from .measure import Table
from .measures import all_measures
from .results import Results
from .roles import in_order


def evaluate(evidence: Evidence) -> Results:
    """Measure the candidates between the original (nothing done) and the retrained models.

    Without retrained models, memory and distances are left out; with one, the noise floor is.
    Figures on a D_f of very few rows are left out as well; see `disclosure`.
    """
    rows = len(evidence.original.forget.labels)
    tables = {}
    for measure in all_measures():
        if not measure.needs.met_by(evidence):
            continue
        table: Table | None = measure.table(evidence)
        # Here, and nowhere before: whatever is computed from figures has all their digits.
        if table is not None and measure.on_forget_set:
            table = disclosed_table(table, rows)
        if table is not None:
            tables[measure.name] = table
    judged = {}
    for role, verdict in verdicts(evidence).items():
        judged[role] = disclosed_verdict(verdict, rows)
    left_out = "" if is_told(rows) else LEFT_OUT
    return Results(tables, tuple(in_order(evidence.models)), judged, left_out)
