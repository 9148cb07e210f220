"""A request to a run, and what honouring it needs."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..core.errors import ConfigError, DataError, RunError
from ..core.say import Say, minutes_text, no_words
from ..data.requests import ErasureRequest, ForgetRetain, Unit
from ..experiments.recipe import Recipe
from ..experiments.request_rows import RequestRows
from ..experiments.study import Study
from ..experiments.workspace import Workspace
from ..models.devices import default_device
from ..models.precision import arithmetic
from ..models.recommender import Recommender
from ..runs.answer_index import answers_of_run
from ..runs.erased_rows import ErasedRows
from ..runs.folder import Run
from ..runs.keys import controller_key, request_digest
from ..runs.record import CitationRecord, MethodRecord, ParentRecord, RunRecord
from ..runs.rehearsal import citation_of
from ..runs.resumption import CheckpointOptions
from ..runs.row_digests import RowKey
from ..runs.score_index import ScoreIndex
from ..runs.split_index import SplitIndex
from ..training.checkpoints import Checkpoints
from ..training.loop import Progress
from ..unlearning.method import Method

HELD_BY_CHECKPOINTS = (
    "a checkpoint holds weights and optimizer state that rows of D_f have moved, encrypted under "
    "the controller's key, but no row, answer or teacher; it goes when the run is finished"
)
"""What a user is told who asks for checkpoints of a request."""
UNCHANGED = "no training row: the model is unchanged"
"""What a run says of a request that concerns no row on which the recommender was tuned."""
PROMPTS_STAY = (
    "the rows bring their own prompts, which stay word for word: where another row's prompt shows "
    "what goes, name that row as well, or its whole user"
)
"""What a user is told who asks for single rows or items of such data."""


@dataclass(frozen=True)
class RequestOptions:
    """A request as it is put.

    Attributes:
        file: of users, interactions or items to forget; without one, a seeded share is drawn.
        ratio: of that draw; default: the recipe's.
        unit: of that draw: users, interactions or items; default: the recipe's.
        seed: of that draw; default: the recipe's.
        skip_unknown: go on when some of what the file names is not in the data.
        key: file of the controller's key, under which the request is recorded; see
            `runs.keys.controller_key`.
        say: told of shadow models of earlier runs that are removed, of prompts that stay, and of
            answers of the run that are not used.
    """

    file: Path | str | None = None
    ratio: float | None = None
    unit: Unit | None = None
    seed: int | None = None
    skip_unknown: bool = False
    key: Path | None = None
    say: Say = no_words

    def is_of_users(self, parent: Run) -> bool:
        """Whether whole users are to be forgotten, and nothing else; raises as `from_file` does."""
        if self.file is None:
            unit = self.unit or _recipe_of(parent, self).request.unit
            return unit == "users"
        request = ErasureRequest.from_file(Path(self.file))
        return not request.interactions and not request.items


@dataclass
class RequestCase:
    """A request to a run, with all that honouring it needs.

    Attributes:
        parent: the run.
        options: the request as it was put.
        space: data and base.
        original: the recommender of the run, until it is taken.
        request: what shall be forgotten.
        parts: the rows of the request.
    """

    parent: Run
    options: RequestOptions
    space: Workspace
    original: Recommender | None
    request: ErasureRequest
    parts: ForgetRetain

    @classmethod
    def open(cls, parent: Run, options: RequestOptions, progress: Progress) -> "RequestCase":
        """Read what is needed; a wrong key or request is told before a model is loaded."""
        drawn_by = (options.ratio, options.unit, options.seed)
        if options.file is not None and any(option is not None for option in drawn_by):
            raise ConfigError(
                "--forget-ratio, --unit and --seed: draw a request; leave them out where --request "
                "names one"
            )
        require_recommender(parent)
        # Read for the error alone: a wrong key is told before hours of work, and not after.
        erased_rows_of(parent, options.key)
        space = open_space(parent, _recipe_of(parent, options), options.key, progress, options.say)
        request = space.request(None if options.file is None else Path(options.file))
        parts = space.resolve(request, skip_unknown=options.skip_unknown)
        if space.data.prompts is not None and (request.interactions or request.items):
            options.say(PROMPTS_STAY)
        _require_measurable(parts)
        original = space.load(parent)
        # The run's own template and tokenizer, whatever the recipe's file says by now.
        space.prompt_reader = original.prompt_reader
        return cls(parent, options, space, original, request, parts)

    def take_original(self) -> Recommender:
        """The recommender of the run, which from now on is the caller's to change or let go of."""
        original = self.original
        assert original is not None, "the original is taken once"
        self.original = None
        return original

    # Tokenising takes a while; the choice of a method asks for their scores, too.
    @cached_property
    def rows(self) -> RequestRows:
        """The tokenised rows of the request, and what is known of them."""
        return self.space.rows(self.parts)

    def study(self) -> Study:
        """The study of the request."""
        return Study(self.space, self.rows)

    @property
    def digest(self) -> str:
        """HMAC of the request under the controller's key."""
        return request_digest(self.request.lines(), self.controller_key)

    @cached_property
    def controller_key(self) -> bytes:
        """The key under which the request is recorded."""
        return controller_key(self.options.key)

    @property
    def has_training_rows(self) -> bool:
        """Whether a training prompt shows anything of what goes; else nothing to unlearn."""
        return len(self.parts.forget) > 0

    def begin_checkpoints(
        self, checkpoints: CheckpointOptions, out: Path, method: Method
    ) -> Checkpoints:
        """The checkpoints of the run in which `method` honours the request."""
        settings = {
            "command": "unlearn",
            "parent": self.parent.sha256,
            "method": method.name,
            "settings": method.model_dump(mode="json"),
            "recipe": self.space.recipe.model_dump(mode="json"),
            "request": self.digest,
            "data": self.space.data.fingerprint(),
        }
        if self.has_training_rows and not method.exact:
            checkpoints.say(HELD_BY_CHECKPOINTS)
        return checkpoints.begin(out, settings, self.controller_key, sealed=True)

    def citation(self, method: Method) -> CitationRecord | None:
        """What the rehearsal of the original says of such a request; None if it does not."""
        if self.request.interactions or self.request.items or not self.has_training_rows:
            return None
        return citation_of(
            self.parent, method.name, method.model_dump(mode="json"), self.controller_key
        )

    def save_erased_rows(self, folder: Path) -> None:
        """Write which rows are erased by now, and for what the others are used."""
        data = self.parts.forget.interactions
        erased = erased_rows_of(self.parent, self.options.key)
        if erased is None:
            erased = ErasedRows.under(self.controller_key)
        erased.with_rows(data, self.parts.erased).save(folder)
        # What the index says of erased rows would outlive them, so it is written without.
        index = self.space.split_index
        assert index is not None
        index.without(data, self.parts.erased, self.new_key).save(folder)
        scores = self.remaining_scores
        if scores is not None:
            scores.under(self.new_key, self.parts.retain.interactions).save(folder)

    @cached_property
    def new_key(self) -> RowKey:
        """Of the row hashes of the new run: no two runs show, side by side, which hashes went."""
        return RowKey.under(self.controller_key)

    # Hashing all rows takes a while, and the files and the record both ask.
    @cached_property
    def remaining_scores(self) -> ScoreIndex | None:
        """Out-of-fold scores of the prompts that stay as they are; None: the parent has none."""
        scores = self.space.score_index
        if scores is None:
            return None
        return scores.without(self.parts.forget.interactions, self.parts.changed)

    def record(self, method: Method, seconds: dict[str, float]) -> RunRecord:
        """What the run of this request says of itself; `seconds` are those of its phases."""
        # Costs and settings stand here, and nothing of the request but its HMAC.
        parent = self.parent
        digest = self.digest
        rows = {}
        scores = self.remaining_scores
        if scores is not None:
            # Each half model was tuned on half of the users: which of them helped with which score
            # is written nowhere, so all scores count.
            rows = {"scores": len(scores), "scores_made_with_erased_rows": len(scores)}
        if self.parts.skipped:
            rows["skipped"] = self.parts.skipped
        how = MethodRecord(name=method.name, settings=method.model_dump(mode="json"))
        return RunRecord(
            kind="unlearned",
            recipe=self.space.recipe.model_dump(mode="json"),
            seed=self.space.recipe.seed,
            seconds=seconds,
            note=None if self.has_training_rows else UNCHANGED,
            rows=rows,
            method=how,
            parent=ParentRecord(path=str(parent.path.resolve()), sha256=parent.sha256),
            request_hmac=digest,
            rehearsal=self.citation(method),
            chain=(*parent.record.chain, digest),
            seconds_per_row=parent.record.seconds_per_row,
            base=parent.record.base,
        )


def _require_measurable(parts: ForgetRetain) -> None:
    """Raise DataError where something is to be unlearned, and no rows are left to ask about."""
    if not len(parts.forget):
        return
    for name in ("test", "unseen"):
        if not len(getattr(parts, name)):
            raise DataError(
                f"request: no {name} rows are left beside it, so nothing could be measured; train "
                "anew without those whom it names"
            )


def _recipe_of(run: Run, options: RequestOptions) -> Recipe:
    """The recipe of a run, with the request as it was put."""
    draw = {"ratio": options.ratio, "unit": options.unit, "seed": options.seed}
    changes = {name: value for name, value in draw.items() if value is not None}
    recipe = run.record.recipe
    request = recipe["request"] | changes
    return Recipe.build(recipe | {"request": request}, place=str(run.path))


def require_recommender(run: Run) -> None:
    """Raise RunError for a run that holds no recommender."""
    if run.record.kind not in ("original", "unlearned"):
        raise RunError(
            f"'{run.path}': is a {run.record.kind}; name a run made by e2urec train or unlearn"
        )


def erased_rows_of(run: Run, key: Path | None) -> ErasedRows | None:
    """What a run and all before it erased; None for an original, which needs no key for that."""
    # An original erased nothing, and whoever reads it need not be the controller.
    if run.record.kind == "original":
        return None
    return ErasedRows.load(run.path, controller_key(key))


def open_space(
    run: Run, recipe: Recipe, key: Path | None, progress: Progress, say: Say = no_words
) -> Workspace:
    """The data and the base of a run, with its split, its out-of-fold scores and its answers.

    `say` is told where the answers are not used.

    Raises:
        RunError: these are damaged, or were recorded under another key than that in file `key`.
    """
    controller = controller_key(key)
    answers = answers_of_run(run, controller, arithmetic_of(recipe), say)
    return Workspace(
        recipe,
        progress,
        split_index=SplitIndex.load(run.path, controller),
        score_index=ScoreIndex.load(run.path, controller),
        answer_index=answers,
        record=run.record,
    )


def arithmetic_of(recipe: Recipe) -> str:
    """In what the models of a recipe answer on this computer."""
    return arithmetic(recipe.tuning.schedule.precision, default_device())


def time_clause(run: Run, rows: int) -> str:
    """`, about 3.0 minutes …` for `rows` that are read; empty where the run does not say."""
    minutes = minutes_for(run, rows)
    if minutes is None:
        return ""
    return f", about {minutes_text(minutes)} at the speed the original was trained"


def minutes_for(run: Run, rows: int) -> float | None:
    """How long `rows` take at the speed at which a run was trained; None if it does not say."""
    pace = run.record.seconds_per_row
    if pace is None:
        return None
    return pace * rows / 60
