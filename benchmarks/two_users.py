"""BOTA's protocol: two users are forgotten, and their rows move towards retraining or away from it.

    python benchmarks/two_users.py --work FOLDER [--pairs 5] [--variant NAME=METHOD:KEY=VALUE …]
        [--base NAME] [--set KEY=VALUE] [--out FILE] [--report-only]

BOTA reports (T5-base, Amazon films, two users, one seed) a residual `Σ|p − r| / Σ|o − r|` over the
rows of D_f of 2.25 for E2URec (1 = nothing done), and 1 of 10 rows that moved towards retraining.
Here p, r and o are the scores of the unlearned, a retrained and the original model. By default the
published settings (`preset=paper`) stand beside the default.

Where this departs from theirs:

- Data and model: MovieLens-100K and the tiny base. `--base smollm2-135m --set model.layers=4` takes
  another; neither T5-base nor their films are at hand.
- Two users are one draw of many, so disjoint pairs are drawn, each forgotten by the same original
  and each retrained without. A second retrained model has the residual of a perfect method.
- A residual has no sign and takes the noise of a seed for memory, so it decides nothing here.

Not known of theirs: how the two users were drawn, whether their ten rows are all that they had, and
which settings and how many steps E2URec was run with (the released code counts in steps, which on
ten rows are a hundred passes and more; the preset counts in passes). Nor is it known what they call
*towards*. Both readings are printed: `towards` (the score moved in the direction in which
retraining moves it) and `closer` (it ended nearer to the retrained model's than it began).

Finished models stay in `--work`, with log-odds of single rows: do not share that folder. Prints one
JSON object.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from common import option_parser
from e2urec.core.arrays import Floats, Ints, Mask
from e2urec.core.errors import ConfigError
from e2urec.core.seeding import stream
from e2urec.data.requests import ErasureRequest
from e2urec.metrics.bootstrap import user_bootstrap
from e2urec.metrics.published import residual_bota
from e2urec.models.recommender import Recommender
from kept_models import (
    FLOOR,
    ORIGINAL,
    RETRAINED,
    ROWS,
    KeptModels,
    add_work,
    answers_in,
    print_report,
    variants_in,
)
from pooled_files import MACHINES, SETTINGS, hours_in, read_arrays, read_record, save_step
from pooled_plan import NamedMethod, variants_of

DEFAULT_VARIANTS = ("default=e2urec", "paper=e2urec:preset=paper")
PART = "forget"
USERS = 2


class PairModels(KeptModels):
    """One original, and for each pair of users what forgets it and what never saw it."""

    def pairs(self, count: int) -> list[Ints]:
        """Codes of the users of disjoint pairs; more pairs change nothing about the first.

        Raises:
            ConfigError: there are fewer users.
        """
        users = np.unique(self.space.split.train.users)
        if count * USERS > len(users):
            raise ConfigError(
                f"--pairs {count}: {len(users)} training users make {len(users) // USERS} pairs; "
                "ask for fewer"
            )
        order = stream(self.space.recipe.data_seed, "two users").permutation(users)
        return list(order[: count * USERS].reshape(count, USERS))

    @cached_property
    def trained(self) -> Recommender:
        """The original, which this process need not have trained."""
        return self.original(ORIGINAL)

    def make_all(self, count: int, variants: Sequence[NamedMethod]) -> None:
        """Make what is missing, pair by pair."""
        for variant in variants:
            self.begin(variant)
        pairs = self.pairs(count)
        once = 2 if self.space.recipe.scores.pairs else 1
        self.grid.total = once + count * (4 + len(variants))
        train = self.space.split.train
        self.make(
            ORIGINAL, lambda: self.tuned(self.space.encode(train), ORIGINAL, 1), {}, keep=True
        )
        for number, users in enumerate(pairs, start=1):
            self._make_pair(number, users, variants)

    def _make_pair(self, number: int, users: Ints, variants: Sequence[NamedMethod]) -> None:
        request = ErasureRequest.of_users(self.space.split.train, users)
        parts = self.space.resolve(request)
        rows = self.space.rows(parts)
        folder = pair_key(number)
        questions = {PART: rows.forget}

        def save_rows(path: Path) -> None:
            odds = self.ask(self.trained, questions)
            save_step(path, odds | {"users": rows.forget.users}, {})

        self.grid.folder_of(f"{folder}/{ROWS}", save_rows)
        for kind in (RETRAINED, FLOOR):
            tuned = partial(self.tuned, rows.retain, kind, number)
            self.make(f"{folder}/{kind}", tuned, questions)
        rows = self.scored_rows(rows, parts, ORIGINAL, 1)
        for variant in variants:
            unlearned = partial(self.unlearned, ORIGINAL, rows, variant, number)
            self.make(f"{folder}/{variant.name}", unlearned, questions)


def pair_key(number: int) -> str:
    """The folder of a pair, counted from 1."""
    return f"pair-{number}"


# --- figures


@dataclass(frozen=True)
class PairScores:
    """P(Yes) of the rows of some pairs, (n,) each.

    Attributes:
        original: before.
        retrained: of the model retrained without the pair.
        model: of the model that is measured.
        users: of the rows.
    """

    original: Floats
    retrained: Floats
    model: Floats
    users: Ints

    @classmethod
    def joined(cls, pairs: Sequence["PairScores"]) -> "PairScores":
        """The rows of all pairs."""
        names = ("original", "retrained", "model", "users")
        return cls(*(np.concatenate([getattr(pair, name) for pair in pairs]) for name in names))

    @property
    def before(self) -> Floats:
        """How far the original is from the retrained model."""
        return np.abs(self.original - self.retrained)

    @property
    def after(self) -> Floats:
        """How far the model is from it."""
        return np.abs(self.model - self.retrained)

    @property
    def is_towards(self) -> Mask:
        """Rows whose score moved in the direction in which retraining moves it."""
        return (self.model - self.original) * (self.retrained - self.original) > 0

    @property
    def is_closer(self) -> Mask:
        """Rows whose score ended nearer to the retrained model's."""
        return self.after < self.before

    def figures(self) -> dict[str, Any]:
        """Residual, and counts of rows."""
        return {
            "rows": len(self.users),
            "residual": residual_bota(self.model, self.retrained, self.original),
            "towards": int(self.is_towards.sum()),
            "closer": int(self.is_closer.sum()),
        }

    def intervals(self, seed: int) -> dict[str, Any]:
        """The residual and the shares of rows, with intervals over users."""
        bootstrap = user_bootstrap(self.users, seed=seed)
        figures = {
            "residual": bootstrap.total(self.after) / bootstrap.total(self.before),
            "towards": bootstrap.mean(self.is_towards),
            "closer": bootstrap.mean(self.is_closer),
        }
        return {name: bootstrap.interval(figure).as_dict() for name, figure in figures.items()}


def work_report(folder: Path, planned: int) -> dict[str, Any]:
    """The figures of all kinds: of each pair that is finished, and of their rows together.

    Raises:
        ConfigError: no pair is finished.
    """
    variants = variants_in(folder)
    pairs = finished_pairs(folder, (FLOOR, *variants), planned)
    if not pairs:
        raise ConfigError(f"'{folder}': no pair is finished; run without --report-only first")
    settings = read_record(folder, SETTINGS)
    kinds = {}
    for kind in pairs[0]:
        scores = [pair[kind] for pair in pairs]
        kinds[kind] = variants.get(kind, {}) | {
            "pairs": [pair.figures() for pair in scores],
            "together": PairScores.joined(scores).intervals(settings["seed"]),
        }
    return {
        "planned": planned,
        "recipe": settings,
        "machines": read_record(folder, MACHINES),
        "hours": hours_in(folder),
        "kinds": kinds,
    }


def finished_pairs(folder: Path, kinds: Sequence[str], planned: int) -> list[dict[str, PairScores]]:
    """The scores by kind of each pair of which all kinds are finished."""
    pairs = []
    for number in range(1, planned + 1):
        path = folder / pair_key(number)
        scores = {kind: pair_scores(path, kind) for kind in kinds}
        finished = {kind: pair for kind, pair in scores.items() if pair is not None}
        if len(finished) == len(kinds):
            pairs.append(finished)
    return pairs


def pair_scores(folder: Path, kind: str) -> PairScores | None:
    """The scores of a model of a pair; None: it is not finished."""
    retrained = answers_in(folder, RETRAINED)
    model = answers_in(folder, kind)
    if retrained is None or model is None:
        return None
    rows = read_arrays(folder / ROWS)
    odds = (rows[PART], retrained[PART], model[PART])
    # In float64: models answer in float32, and differences of scores are small.
    original, reference, measured = (special.expit(part.astype(np.float64)) for part in odds)
    return PairScores(original, reference, measured, rows["users"])


# --- the command line


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    add_work(parser)
    parser.add_argument("--pairs", type=int, default=5, help="disjoint pairs of users")
    return parser.parse_args(words)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make what is missing, and report."""
    if not arguments.report_only:
        variants = variants_of(arguments.variant or DEFAULT_VARIANTS, arguments.variants)
        settings = [*arguments.set, f"seed={arguments.seed}"]
        models = PairModels.open(arguments.work, settings, "two users", arguments.base)
        models.make_all(arguments.pairs, variants)
    return work_report(arguments.work, arguments.pairs)


def main(words: Sequence[str] | None = None) -> None:
    """Read the arguments; make, measure, print and write."""
    arguments = options(words)
    print_report(lambda: run(arguments), arguments.out)


if __name__ == "__main__":
    main()
