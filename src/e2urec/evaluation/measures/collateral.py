"""Collateral damage: utility by kind of user and item, so that harm to a few does not hide."""

from collections.abc import Iterator

from ...metrics.bootstrap import Bootstrap, Figure, Interval
from ..disclosure import SliceDifference
from ..evidence import Evidence
from ..measure import Column, Measure, Needs, Row
from ..roles import ORIGINAL, Role, RoleKind

SHOWN_ATTRIBUTES = 5
"""Users have dozens of attribute values; tables show those that lose most."""


class Collateral(Measure):
    """AUC and log loss on slices of the test rows, less the original's there."""

    name = "collateral"
    title = "Test rows by slice: the model less the original"
    place = 60
    on_forget_set = False
    columns = (Column("rows", "rows", 0), Column("auc", "AUC"), Column("log_loss", "log loss"))
    needs = Needs(slices=True)
    group_title = "slice"
    about = RoleKind.UNLEARNED

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model and slice."""
        tables = {name: self._figures(evidence, name) for name in evidence.slices}
        for role in evidence.models:
            if role == ORIGINAL:
                continue
            rows: dict[str, dict[str, Interval]] = {}
            for name, (bootstrap, figures) in tables.items():
                count = len(bootstrap.user)
                rows[name] = {"rows": Interval(count, float("nan"), float("nan"), count)}
                for key in ("auc", "log_loss"):
                    difference = figures[role][key] - figures[ORIGINAL][key]
                    rows[name][key] = SliceDifference.of(bootstrap.interval(difference))
            prominent, minor = _by_harm(rows)
            for name in prominent:
                # How the model is deployed changes little of this: once is enough for people.
                yield Row(role, rows[name], group=name, minor=bool(role.form))
            for name in minor:
                yield Row(role, rows[name], group=name, minor=True)

    def _figures(
        self, evidence: Evidence, name: str
    ) -> tuple[Bootstrap, dict[Role, dict[str, Figure]]]:
        mask = evidence.slices[name]
        users = evidence.original.test.users[mask]
        bootstrap = evidence.bootstrap(name, users)
        figures = {}
        for role, answers in evidence.models.items():
            labels = answers.test.labels[mask]
            odds = answers.test.log_odds[mask]
            figures[role] = {
                "auc": bootstrap.auc(labels, odds),
                "log_loss": bootstrap.log_loss(labels, odds),
            }
        return bootstrap, figures


def _by_harm(rows: dict[str, dict[str, Interval]]) -> tuple[list[str], list[str]]:
    """What tables show, and the rest.

    Shown are the general slices, and the attributes of users (`column=value`) that lose most AUC.
    """
    general = [name for name in rows if "=" not in name]
    attributes = [name for name in rows if "=" in name]

    def change(name: str) -> float:
        return rows[name]["auc"].value

    attributes.sort(key=change)
    prominent = general + attributes[:SHOWN_ATTRIBUTES]
    return prominent, attributes[SHOWN_ATTRIBUTES:]
