"""Membership inference: do a model's answers give away on whose rows it was tuned?"""

from collections.abc import Iterator

from ..attacks import ATTACKS
from ..evidence import Evidence
from ..measure import Column, Headline, Measure, Needs, Row
from ..roles import ORIGINAL


class Membership(Measure):
    """How well each attack tells D_f (members) from the unseen users' rows (non-members).

    0.5 of AUC is chance. Where a retrained model is off chance itself the two groups of users
    differ by nature, and only the AUC beyond a retrained model's means anything.
    """

    name = "membership"
    title = "Membership attacks on D_f: AUC, 0.5 = chance"
    place = 70
    columns = (
        Column("auc", "AUC", 2),
        Column("advantage", "advantage", 2),
        Column("tpr_at_fpr", "TPR at 1% FPR", 3),
        Column("auc_beyond", "AUC − retrained's", 2),
    )
    needs = Needs(candidates=True)
    headlines = (Headline("auc_beyond", "attack beyond retrained", 3, group="loss"),)
    group_title = "attack"
    group_titles = ATTACKS

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model and attack."""
        # The retrained models too: they are the negative control.
        for role in evidence.models:
            for attack, figures in evidence.attacks(role).items():
                yield Row(role, figures, group=attack)

    def spread(self, evidence: Evidence) -> dict[str, str]:
        """The AUC itself, or that beyond a retrained model's where those are off chance."""
        off_chance = self._off_chance(evidence)
        columns = {}
        for attack in evidence.attacks(ORIGINAL):
            columns[attack] = "auc_beyond" if attack in off_chance else "auc"
        return columns

    def note(self, evidence: Evidence) -> str:
        """Say what the mark means."""
        if not self._off_chance(evidence):
            return ""
        return (
            "*: less a retrained model's AUC, which is off chance itself: the two groups of users "
            "differ by nature."
        )

    def _off_chance(self, evidence: Evidence) -> list[str]:
        """Negative control: the attacks that a retrained model does not withstand."""
        if not evidence.retrained:
            return []
        attacks = evidence.attacks(evidence.retrained[0])
        names = []
        for name, figures in attacks.items():
            auc = figures["auc"]
            at_chance = auc.low <= 0.5 <= auc.high
            if not at_chance:
                names.append(name)
        return names
