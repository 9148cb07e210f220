"""The tokenised rows of one request."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..core.arrays import Floats, Ints, Mask
from ..data.difficulty import Difficulty
from ..evaluation.answers import EvaluationSets
from ..models.batches import Examples
from ..unlearning.task import RequestScores


@dataclass(frozen=True)
class RequestRows:
    """Tokenised rows of one request; see `ForgetRetain`.

    Attributes:
        slices: masks over `test`, by name.
        difficulty: of the rows of `retain`, `calibration` and `unseen`.
        retain_sample: positions in `retain` of the rows that models are asked about.
        rewritten: positions in `retain` of the rows whose prompt no longer shows one that goes.
        removed: rows of the data that go.
        removed_users: users whom these are of.
        skipped: things that the request names and the data do not hold.
        scores: out-of-fold scores; None where the original has none.
        original_odds: log-odds of the original that its run keeps; see `Task.original_odds`.
    """

    forget: Examples
    retain: Examples
    valid: Examples
    test: Examples
    later: Examples
    calibration: Examples
    unseen: Examples
    old_prompts: Examples
    slices: dict[str, Mask]
    difficulty: Difficulty
    retain_sample: Ints
    rewritten: Ints
    removed: int = 0
    removed_users: int = 0
    skipped: int = 0
    scores: RequestScores | None = None
    original_odds: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def evaluation(self) -> EvaluationSets:
        """The rows that models are asked about."""
        return EvaluationSets(
            test=self.test,
            forget=self.forget,
            unseen=self.unseen,
            valid=self.valid,
            retain=self.retain.take(self.retain_sample),
            rewritten=self.old_prompts if len(self.old_prompts) else None,
        )

    @property
    def evaluation_odds(self) -> dict[str, Floats]:
        """The log-odds of the original among those that `evaluation` asks for, by set."""
        # Calibration rows are there to choose settings by, and nothing is measured on them.
        odds = {name: part for name, part in self.original_odds.items() if name != "calibration"}
        if "retain" in odds:
            odds["retain"] = odds["retain"][self.retain_sample]
        return odds

    @property
    def task_odds(self) -> dict[str, Floats]:
        """The log-odds of the original that a method may read: it is given no test rows."""
        return {name: odds for name, odds in self.original_odds.items() if name != "test"}

    @property
    def forget_users(self) -> int:
        """Number of users with rows in D_f."""
        return len(np.unique(self.forget.users))

    def counts(self) -> dict[str, int]:
        """Rows in each part, rows and prompts that change, and users in D_f."""
        parts = {name: part for name, part in vars(self).items() if isinstance(part, Examples)}
        sizes = {name: len(part) for name, part in parts.items()}
        # The original was tuned on a rewritten row with its old prompt, not with its new one.
        changed_count = len(self.forget) + sizes.pop("old_prompts")
        return sizes | {
            "removed": self.removed,
            "removed_users": self.removed_users,
            "skipped": self.skipped,
            "rewritten": len(self.rewritten),
            # All of them, unless D_f are just their old prompts.
            "others_rewritten": len(self.old_prompts),
            "training": changed_count + len(self.retain) - len(self.rewritten),
            "forgotten_users": self.forget_users,
        }
