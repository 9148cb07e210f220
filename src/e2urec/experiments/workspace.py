"""The data and the base of a recipe, and what they become for a request."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..core.contents import RESTORE
from ..core.errors import ModelError, RunError
from ..core.seeding import derive
from ..data.difficulty import difficulty
from ..data.given_split import given_split
from ..data.interactions import Interactions
from ..data.prompts import PromptTemplate
from ..data.requests import ErasureRequest, ForgetRetain, resolve
from ..data.samples import Samples
from ..data.splits import Split, limit, require_usable, split
from ..data.templating import find_template
from ..evaluation.slices import slices
from ..models.backbone import Backbone
from ..models.base_files import base_folder, base_hashes, refuse_other_base
from ..models.batches import Examples
from ..models.recommender import Recommender
from ..models.tokens import PromptReader, tokenise
from ..runs.answer_index import AnswerIndex
from ..runs.folder import Run
from ..runs.record import BaseRecord, RunRecord
from ..runs.row_digests import RowKey
from ..runs.score_index import ScoreIndex
from ..runs.split_index import SplitIndex
from ..training.checkpoints import NO_CHECKPOINTS, Checkpoints
from ..training.costs import Costs
from ..training.half_models import HalfModels
from ..training.loop import Phase, Progress, Trace, silent
from ..training.out_of_fold import PHASE, OutOfFold, RowScores
from ..training.supervised import tune
from ..unlearning.method import Method
from ..unlearning.task import RequestScores, Task, TrainingTask
from .odds_at_hand import odds_at_hand, retain_sample
from .packaged import read_source, resolve_model
from .recipe import Recipe, RequestRecipe
from .request_rows import RequestRows

HELD_OUT_PARTS = ("calibration", "unseen")
"""The parts of a split whose users no model is tuned on."""
TEMPLATE_PROBES = 20
"""Prompts that are rendered before a model is loaded, so that a bad template is told at once."""


@dataclass
class Workspace:
    """The data and the base of a recipe, each loaded at its first use.

    Attributes:
        recipe: all settings.
        progress: told of each step.
        costs: of training, loading and evaluation.
        prompt_reader: of a tuned model, so that the base need not be loaded to read prompts.
        split_index: of the run that a request is put to: its split is taken from there, and rows
            that it does not hold are left out.
        score_index: out-of-fold scores of the original's rows; None: it has none.
        answer_index: answers of the original to some of its rows; None: none are kept.
        checkpoints: where it is kept how far a training is.
        record: of the run folder that the recipe is from; None: the recipe is the user's own. A
            folder may come from a stranger: what it names is not fetched from anywhere unless the
            user names it as well, and its base is refused unless it is the one of the record.
        row_key: of the hashes of rows that are written; with a split index, that one's.
    """

    recipe: Recipe
    progress: Progress = silent
    costs: Costs = field(default_factory=Costs)
    prompt_reader: PromptReader | None = None
    split_index: SplitIndex | None = None
    score_index: ScoreIndex | None = None
    answer_index: AnswerIndex | None = None
    checkpoints: Checkpoints = NO_CHECKPOINTS
    record: RunRecord | None = None
    row_key: RowKey = field(default_factory=RowKey.random)

    def __post_init__(self) -> None:
        # Both indices of a run go by the same hashes, after rows have gone as well.
        if self.split_index is not None:
            self.row_key = self.split_index.key

    @property
    def pinned(self) -> BaseRecord | None:
        """The base that the run was made from; None: there is no run, or it does not say."""
        return None if self.record is None else self.record.base

    # --- data

    @cached_property
    def data(self) -> Interactions:
        """All rows of the source; raises DataError if it cannot be read."""
        recipe = self.recipe
        is_users = self.record is None
        return read_source(
            recipe.data, recipe.columns, seed=recipe.data_seed, named_by_user=is_users
        )

    @cached_property
    def split(self) -> Split:
        """All parts, cut down as the recipe says; or those of the index."""
        settings = self.recipe.data
        # After rows were erased at their source the split could not be made again.
        if self.split_index is not None:
            return self.split_index.split(self.data, settings.history)
        seed = self.recipe.data_seed
        cut = split if self.data.prompts is None else given_split
        whole = cut(self.data, settings, seed=seed)
        return limit(whole, settings, seed=seed)

    @property
    def template(self) -> PromptTemplate:
        """The prompt template; raises DataError as `find_template` does."""
        if self.prompt_reader is not None:
            return self.prompt_reader.template
        return find_template(self.recipe.data.template)

    def encode(self, samples: Samples) -> Examples:
        """Tokenise samples with the recipe's template."""
        reader = self.prompt_reader or self.base
        return tokenise(
            samples,
            self.template,
            reader.tokenizer,
            seq2seq=reader.seq2seq,
            window=self.recipe.model.window,
            join_pieces=self.recipe.data.joined,
        )

    # --- requests

    def request(self, path: Path | None = None) -> ErasureRequest:
        """The request in `path`, or the recipe's share of the training users."""
        if path is not None:
            return ErasureRequest.from_file(path)
        return self.draw(self.recipe.request)

    def draw(self, request: RequestRecipe, among: Samples | None = None) -> ErasureRequest:
        """The share of `among` (all training samples) that a recipe's request asks for."""
        samples = self.split.train if among is None else among
        return ErasureRequest.draw(samples, request.ratio, request.seed, request.unit)

    def resolve(self, request: ErasureRequest, *, skip_unknown: bool = False) -> ForgetRetain:
        """The rows of a request; raises DataError as `requests.resolve` does."""
        return resolve(request, self.split, skip_unknown=skip_unknown)

    def rows(self, parts: ForgetRetain) -> RequestRows:
        """Tokenise the rows of a request."""
        samples = {name: part for name, part in vars(parts).items() if isinstance(part, Samples)}
        encoded = {name: self.encode(part) for name, part in samples.items()}
        # Users who only lose some of their rows count as well.
        erased_users = np.unique(parts.forget.interactions.user[parts.erased])
        outsiders = {name: getattr(parts, name) for name in HELD_OUT_PARTS}
        seed = self.recipe.data_seed
        return RequestRows(
            **encoded,
            slices=slices(parts),
            difficulty=difficulty(parts.retain, outsiders, seed=seed),
            retain_sample=retain_sample(parts.retain, seed=seed),
            removed=int(parts.erased.sum()),
            removed_users=len(erased_users),
            skipped=parts.skipped,
            rewritten=parts.rewritten,
            scores=self.request_scores(parts),
            original_odds=odds_at_hand(self.answer_index, parts, encoded),
        )

    def request_scores(self, parts: ForgetRetain) -> RequestScores | None:
        """Out-of-fold scores of a request's rows; None where the original has none."""
        if self.score_index is None:
            return None
        models = self.recipe.scores.pairs
        return self.score_index.of_request(parts, self.template, models)

    # --- models

    @cached_property
    def base(self) -> Backbone:
        """The backbone before any user's data; callers tune a copy.

        Raises:
            ModelError: it cannot be loaded, is not the one that the run was made from, or nobody
                knows which that was.
        """
        if self.record is not None and self.record.base is None:
            raise ModelError(
                "base model: the run does not say from which its model was tuned, so none can be "
                "tuned again; import the model with --base"
            )
        model = self.recipe.model
        revision = None if self.pinned is None else self.pinned.revision
        with self.costs.phase("loading"):
            base = model.load(
                whole=self.recipe.tuning.lora is None,
                revision=revision,
                offline=self.record is not None,
            )
            if self.pinned is not None:
                refuse_other_base(resolve_model(model.name), revision, self.pinned.files)
        return base

    def release_base(self) -> None:
        """Let go of the base, with which adapted models share weights; it can be loaded again."""
        self.__dict__.pop("base", None)

    def base_record(self) -> BaseRecord:
        """The base by name and content, for the record of a run that is made from it."""
        name = self.recipe.model.name
        folder, revision = base_folder(resolve_model(name))
        return BaseRecord(name=name, revision=revision, files=base_hashes(folder))

    def untuned(self) -> Recommender:
        """The base as a recommender; whoever tunes it tunes a copy."""
        return Recommender(self.base, self.template, window=self.recipe.model.window)

    def model_bytes(self) -> int:
        """Bytes that a tuned model takes on a disk; of base + LoRA only the adapter is written."""
        if self.recipe.tuning.lora is not None:
            return 0
        # In float32, as it is trained. Tied weights count once, as in the file.
        return sum(value.numel() * value.element_size() for value in self.base.lm.parameters())

    def load(self, run: Run) -> Recommender:
        """The recommender of a run folder.

        Raises:
            RunError: it is an adapter, and its record does not say of what.
            ModelError: it cannot be loaded, or is an adapter of another base.
        """
        if run.adapted and run.record.base is None:
            raise RunError(
                f"'{run.path}': does not say which base model its adapter is of; {RESTORE}"
            )
        if run.adapted and run.record.base != self.pinned:
            raise ModelError(
                f"'{run.path}': is an adapter of another base model than the run it is used with; "
                "train both from one"
            )
        return Recommender.load(run.path, self.base.with_shared_weights() if run.adapted else None)

    def train(self) -> tuple[Recommender, Trace]:
        """Tune the original on all training rows."""
        self.check_before_training()
        train = self.encode(self.split.train)
        valid = self.encode(self.split.valid)
        phase = Phase("original", self.recipe.seed, self.progress, self.checkpoints)
        with self.costs.phase("original"):
            model, trace = tune(self.untuned(), self.recipe.tuning, train, valid, phase)
        self.costs.add_earlier_seconds("original", trace)
        return model, trace

    def make_scores(self, scratch: Path | None = None) -> None:
        """Make out-of-fold scores of all rows that a request may need, as the recipe says.

        These are the training rows and the held-out users'; with no pairs nothing happens.

        Args:
            scratch: folder for large things while they are made; None: the system's.
        """
        if not self.recipe.scores.pairs:
            return
        self.check_before_training()
        scores = self.row_scores(self.recipe.scores, self.costs, scratch)
        self.score_index = ScoreIndex.of(self.split, scores, self.template, self.row_key)

    def row_scores(
        self, settings: OutOfFold, costs: Costs, scratch: Path | None = None
    ) -> dict[str, RowScores]:
        """Out-of-fold scores of the training rows and of the held-out users', by part."""
        half_models = HalfModels(
            base=self.untuned(),
            settings=settings,
            original=self.recipe.tuning,
            valid=self.encode(self.split.valid),
            seed=derive(self.recipe.seed, PHASE),
            costs=costs,
            progress=self.progress,
            scratch=scratch,
            checkpoints=self.checkpoints,
        )
        outsiders = {name: self.encode(getattr(self.split, name)) for name in HELD_OUT_PARTS}
        return half_models.scores(self.encode(self.split.train), outsiders)

    def scores_row_count(self) -> int:
        """Rows that `make_scores` reads."""
        outsiders = sum(len(getattr(self.split, name)) for name in HELD_OUT_PARTS)
        epochs = self.recipe.tuning.schedule.epochs
        return self.recipe.scores.row_count(len(self.split.train), outsiders, epochs)

    def check_before_training(self) -> None:
        """Raise DataError for what training could not end well with, before a model is loaded."""
        # What requests left of a run's split is measured as far as it goes.
        if self.split_index is None:
            require_usable(self.split, calibration=self.recipe.data.calibration > 0)
        # Nothing is kept of it: a template that fails does so now.
        probes = np.arange(min(TEMPLATE_PROBES, len(self.split.train)))
        self.template.render(self.split.train.take(probes))

    def training_task(self) -> TrainingTask:
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
            checkpoints=self.checkpoints,
        )

    def task(
        self,
        original: Recommender,
        rows: RequestRows,
        method: Method,
        *,
        scratch: Path | None = None,
    ) -> Task:
        """A task for `method`.

        The method may change `original`, and may keep large things in `scratch` while it runs.
        """
        return Task(
            original=original,
            base=self.base if method.needs_base else None,
            tuning=self.recipe.tuning,
            forget=rows.forget,
            retain=rows.retain,
            valid=rows.valid,
            calibration=rows.calibration,
            unseen=rows.unseen,
            difficulty=rows.difficulty,
            seed=self.recipe.seed,
            precision=self.recipe.tuning.schedule.precision,
            progress=self.progress,
            scores=rows.scores,
            original_odds=rows.task_odds,
            rewritten=rows.rewritten,
            old_prompts=rows.old_prompts,
            scratch=scratch,
            checkpoints=self.checkpoints,
        )
