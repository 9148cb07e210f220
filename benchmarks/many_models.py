"""Whether unlearned models could have come from retraining: many models of each kind, row by row.

    python benchmarks/many_models.py --work FOLDER [--models 20] [--variant default=e2urec]
        [--base NAME] [--set KEY=VALUE] [--out FILE] [--report-only]

N originals of their own seeds each forget the same request by each variant, with seeds of their own
too; N models are retrained without it, and N further ones say what each figure is at the same
distribution (the floor). All are asked about D_f, a sample of D_r, test rows and rows of unseen
users. From their margins come KLOM (Georgiev et al. 2024, arXiv 2410.23232), per-example U-LiRA
(Hayes et al. 2024, arXiv 2403.01218) and forgetting quality by (ε, δ) (Triantafillou et al. 2024,
arXiv 2406.09073), against the first N retrained models.

Models are made in rounds, one of each kind, and stay in `--work`: the same command goes on after an
interrupt, `--models` may be raised and variants may be added later. A report is of the rounds that
are finished. Without `--base` the tiny base is made in the folder first. The folder holds log-odds
of single rows: do not share it. Prints one JSON object.
"""

import argparse
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from common import option_parser
from e2urec.core.arrays import Ints
from e2urec.data.requests import ForgetRetain
from e2urec.experiments.request_rows import RequestRows
from e2urec.models.batches import Examples
from kept_models import FLOOR, ORIGINAL, RETRAINED, ROWS, KeptModels, add_work, print_report
from many_figures import PARTS, step_key, work_report
from pooled_files import save_step
from pooled_plan import NamedMethod, variants_of

DEFAULT_VARIANTS = ("default=e2urec",)


class ManyModels(KeptModels):
    """The models of one request, of each kind many."""

    @cached_property
    def parts(self) -> ForgetRetain:
        """Of the request that the recipe draws."""
        return self.space.resolve(self.space.request())

    @cached_property
    def rows(self) -> RequestRows:
        """The same tokenised."""
        return self.space.rows(self.parts)

    @cached_property
    def train(self) -> Examples:
        """All training rows."""
        return self.space.encode(self.space.split.train)

    @cached_property
    def questions(self) -> dict[str, Examples]:
        """The rows that models are asked about, by part."""
        sets = self.rows.evaluation
        return {part: getattr(sets, part) for part in PARTS}

    def make_all(self, count: int, variants: Sequence[NamedMethod]) -> None:
        """Make `count` models of each kind, round by round, so that any number can be reported."""
        for variant in variants:
            self.begin(variant)
        # The rows come before the models; of the base the grid has told nothing.
        models = 3 + len(variants) + (1 if self.space.recipe.scores.pairs else 0)
        self.grid.total = 1 + count * models
        self.grid.folder_of(ROWS, self._save_rows)
        for number in range(1, count + 1):
            self._make_round(number, variants)

    def _make_round(self, number: int, variants: Sequence[NamedMethod]) -> None:
        retained = self.rows.retain
        for kind, rows in ((RETRAINED, retained), (FLOOR, retained), (ORIGINAL, self.train)):
            tuned = partial(self.tuned, rows, kind, number)
            # Variants that are added later forget from the same originals.
            self.make(step_key(kind, number), tuned, self.questions, keep=kind == ORIGINAL)
        original = step_key(ORIGINAL, number)
        scored = self.scored_rows(self.rows, self.parts, original, number)
        for variant in variants:
            unlearned = partial(self.unlearned, original, scored, variant, number)
            self.make(step_key(variant.name, number), unlearned, self.questions)

    def _save_rows(self, folder: Path) -> None:
        arrays: dict[str, Ints] = {}
        for part, rows in self.questions.items():
            arrays[f"{part}.labels"] = rows.labels
            arrays[f"{part}.users"] = rows.users
        save_step(folder, arrays, {"counts": self.rows.counts()})


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    add_work(parser)
    parser.add_argument("--models", type=int, default=20, help="models of each kind")
    return parser.parse_args(words)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make what is missing, and report."""
    if not arguments.report_only:
        variants = variants_of(arguments.variant or DEFAULT_VARIANTS, arguments.variants)
        settings = [*arguments.set, f"seed={arguments.seed}"]
        models = ManyModels.open(arguments.work, settings, "many models", arguments.base)
        models.make_all(arguments.models, variants)
    return work_report(arguments.work, arguments.models)


def main(words: Sequence[str] | None = None) -> None:
    """Read the arguments; make, measure, print and write."""
    arguments = options(words)
    print_report(lambda: run(arguments), arguments.out)


if __name__ == "__main__":
    main()
