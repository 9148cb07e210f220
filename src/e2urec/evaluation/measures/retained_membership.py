"""Membership of those who stay: does forgetting some make others easier to tell?"""

from collections.abc import Iterator
from dataclasses import replace

from ...core.seeding import derive
from ..attacks import AttackSetup
from ..evidence import Evidence
from ..measure import Column, Measure, Needs, Row
from ..roles import ORIGINAL


class RetainedMembership(Measure):
    """How well the loss attack tells rows of D_r (members) from the unseen users' rows.

    Before, that is on the original, and after. A method that tunes on D_r again, or leaves D_r more
    to carry, can give away people who asked for nothing (privacy onion effect: Carlini et al.
    2022, arXiv 2206.10469).
    """

    name = "retained_membership"
    title = "Membership attacks on D_r, who stay: AUC, 0.5 = chance"
    place = 72
    on_forget_set = False
    columns = (
        Column("auc", "AUC", 3),
        Column("change", "AUC − the original's", 3),
    )
    needs = Needs(candidates=True, retain=True)
    group_title = "attack"

    def rows(self, evidence: Evidence) -> Iterator[Row]:
        """One row a model and attack."""
        original = evidence.original
        assert original.retain is not None, "what a measure needs is there"
        setup = AttackSetup(
            shadows=None,
            control=replace(original, forget=original.retain),
            seed=derive(evidence.seed, "attacks on D_r"),
            resamples=evidence.resamples,
        )
        for role, answers in evidence.models.items():
            assert answers.retain is not None, "what a measure needs is there"
            members = replace(answers, forget=answers.retain)
            for attack, attack_figures in setup.attack(members).items():
                figures = {"auc": attack_figures["auc"]}
                # The original's change is 0 by definition.
                if role != ORIGINAL:
                    figures["change"] = attack_figures["auc_beyond"]
                # By row and by user say much the same; the files have both.
                yield Row(role, figures, group=attack, minor=attack != "loss")
