"""Whether a recommender that was made elsewhere answers its rows as it was tuned to."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.arrays import Floats
from ..core.errors import ConfigError, DataError, ModelError
from ..core.reading import UNREADABLE
from ..core.seeding import stream
from ..data.sources.prompt_rows import SUFFIXES, holds_prompts
from ..data.sources.prompts import Prompts
from ..data.splits import Split
from ..experiments.recipe import DataRecipe
from ..experiments.workspace import Workspace
from ..metrics.classification import log_loss
from ..models.backbone import Backbone
from ..models.batches import FORWARD_BATCH_SIZE, Examples, batches_by_length
from ..models.importing import HEAD_REMEDY, MERGE, ForeignAdapter
from ..models.recommender import Recommender
from ..models.verbaliser import Verbaliser

# A mean over so many rows is sure to a few hundredths of a nat.
CHECK_ROWS = 2000
"""Rows, at most, on which a model is asked before it is taken over."""
# Tuned by cross-entropy to say one of two answers, a model gives them nearly all its probability
# after a few dozen steps. Below one half it would sooner say something else than both of them.
MASS = 0.5
"""Least probability of both answers together, in the mean of rows that a model was tuned on."""
SCORE_TOLERANCE = 1e-3
"""By how much a score may differ from that of its makers' code: other kernels, other batches."""

HELD_REMEDY = "give rows that the model was not tuned on with --held"
NEEDS = {
    "train": "there is nothing to forget; give those that the model was tuned on with --rows",
    "valid": f"no placebo can be made; {HELD_REMEDY}",
    "test": f"utility cannot be measured; {HELD_REMEDY}",
    "unseen": f"memory cannot be told from none; {HELD_REMEDY}, of users of whom it saw nothing",
}
"""Parts without which no request can be honoured and measured, and why."""


@dataclass(frozen=True)
class AnswerCheck:
    """What a model says of rows that it was tuned on.

    Attributes:
        rows: how many were asked.
        log_loss: mean −log p(y) over the two answers, in nats.
        prior: the same of one who knows only how many of these rows are liked.
        mass: mean probability of the two answers together, among all tokens.
    """

    rows: int
    log_loss: float
    prior: float
    mass: float

    def sentence(self) -> str:
        """What a user reads of it."""
        return (
            f"{self.rows:,} training rows: log loss {self.log_loss:.3f}, where the share of liked "
            f"rows alone gives {self.prior:.3f}; the two answers carry {self.mass:.1%} of the "
            f"probability{self._doubt()}"
        )

    def _doubt(self) -> str:
        """What is added where a model would rather say something else."""
        if self.mass >= MASS:
            return ""
        return f", less than the {MASS:.0%} of a model that was tuned to say them"

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self)


def require_prompts(data: DataRecipe) -> None:
    """Raise an error where the rows are not recognised as such, with what is wrong with them."""
    path = Path(data.source)
    if holds_prompts(path):
        return
    # Whatever else the file might be, an import reads it as rows: the error says which is none.
    if path.suffix.lower() in SUFFIXES and path.is_file():
        Prompts.configure(data.options).read_lines(path)
    raise no_prompts(data.source)


def no_prompts(source: str) -> ConfigError:
    """The error for data that are something else."""
    return ConfigError(
        f"data '{source}': are no rows with their own prompts, which import needs; give JSON lines "
        "with user, prompt and output, and leave data.template alone"
    )


def refuse_limits(data: DataRecipe) -> None:
    """Raise ConfigError for a limit: rows beyond it were tuned on, and could not be forgotten."""
    for name in ("rows", "per_user", "since", "until"):
        if getattr(data, name) is not None:
            raise ConfigError(
                f"data.{name}: would leave out rows that the model was tuned on; leave it out"
            )


def check_answers(
    model: Recommender, train: Examples, *, seed: int, min_mass: float = MASS
) -> AnswerCheck:
    """Ask the model about rows that it was tuned on.

    Raises:
        ModelError: it says less of them than the share of liked rows does, or gives its answers
            less than `min_mass`, so that they are not read where, or as, it was taught to give
            them.
    """
    order = stream(seed, "checked rows").permutation(len(train))
    rows = train.take(np.sort(order[:CHECK_ROWS]))
    log_odds, mass = _answers(model, rows)
    share = float(rows.labels.mean())
    prior_odds = np.full(len(rows), np.log(share / (1 - share)) if 0 < share < 1 else 0.0)
    check = AnswerCheck(
        rows=len(rows),
        log_loss=log_loss(rows.labels, log_odds),
        prior=log_loss(rows.labels, prior_odds),
        mass=float(mass.mean()),
    )
    # Written so that NaN fails it.
    if not check.log_loss < check.prior:
        raise ModelError(
            f"model: its log loss on {check.rows} training rows is {check.log_loss:.3f}, and the "
            f"share of liked rows alone gives {check.prior:.3f} (its answers carry "
            f"{check.mass:.1%} of the probability), so they are not read as it was tuned; give "
            "prompts and outputs letter by letter as they were, its own base, and --chat or "
            "--format if those were used"
        )
    if not check.mass >= min_mass:
        raise ModelError(
            f"model: its answers carry {check.mass:.1%} of the probability on {check.rows} "
            f"training rows, and should carry {min_mass:.0%} or more, so they are not read as it "
            "was tuned; give outputs letter by letter, with the space before them, or all their "
            "forms with --answers; of a model that was tuned on the scores of the two answers "
            "alone, allow it with --min-mass 0"
        )
    return check


@torch.no_grad()
def _answers(model: Recommender, rows: Examples) -> tuple[Floats, Floats]:
    """Log-odds and mass of the two answers of each row: (n,) and (n,)."""
    log_odds = np.zeros(len(rows))
    mass = np.zeros(len(rows))
    tokens = [model.verbaliser.yes, model.verbaliser.no]
    with model.using():
        for index in batches_by_length(rows.lengths, FORWARD_BATCH_SIZE):
            logits = model.logits(model.collate(rows, index))
            log_odds[index] = model.verbaliser.log_odds(logits).cpu().numpy()
            probabilities = logits.softmax(dim=1)[:, tokens]
            mass[index] = probabilities.sum(1).cpu().numpy()
    return log_odds, mass


def check_scores(space: Workspace, model: Recommender, file: Path) -> str:
    """Compare the model's scores with those that its makers' own code gave, and say how it went.

    Args:
        space: names the file of the rows.
        model: the model as it was taken over.
        file: `.npy` of P(liked) of each row of that file, (n,), in its order.

    Raises:
        DataError: the file cannot be used.
        ModelError: a score differs by more than 0.001.
    """
    settings = space.recipe.data
    path = Path(settings.source)
    lines = Prompts.configure(settings.options).read_lines(path)[path]
    expected = _read_scores(file, len(lines))
    order = stream(space.recipe.seed, "checked scores").permutation(len(lines))
    index = np.sort(order[:CHECK_ROWS])
    scores = model.score(model.encode_texts([lines[k].prompt for k in index]))
    differences = np.abs(scores - expected[index])
    worst = int(differences.argmax())
    if not differences.max() <= SCORE_TOLERANCE:
        many = int((differences > SCORE_TOLERANCE).sum())
        raise ModelError(
            f"'{file}': {many} of {len(index)} scores differ by more than {SCORE_TOLERANCE:g}, row "
            f"{index[worst] + 1} by {differences[worst]:.3f}: this is not the model, or not the "
            "prompt, that they are of; give the same base, prompts and window, and scores in "
            "float32"
        )
    return (
        f"{len(index):,} scores are those of '{file}', to within {differences.max():.1e} "
        f"({SCORE_TOLERANCE:g} is allowed)"
    )


def _read_scores(file: Path, count: int) -> Floats:
    try:
        scores = np.load(file, allow_pickle=False)
    except UNREADABLE as error:
        raise DataError(
            f"scores '{file}': cannot be read; give a .npy file of one number a row"
        ) from error
    is_table = isinstance(scores, np.ndarray) and np.issubdtype(scores.dtype, np.floating)
    if not is_table or scores.shape != (count,):
        raise DataError(
            f"scores '{file}': are no {count} numbers, one for each of the rows; give P(liked) of "
            "each, in their order"
        )
    if not ((scores >= 0) & (scores <= 1)).all():
        raise DataError(f"scores '{file}': are no probabilities from 0 to 1; give P(liked)")
    return np.asarray(scores, dtype=np.float64)


def refuse_layers(base: Backbone, adapter: ForeignAdapter) -> None:
    """Raise ModelError for an adapter of layers that the base lacks, or of its output head.

    Teachers and scores multiply states with the head's own weight, to which nothing is added.
    """
    modules = dict(base.lm.named_modules())
    missing = [name for name in adapter.layers if name not in modules]
    if missing:
        raise ModelError(
            f"base '{base.name}': lacks {len(missing)} of the adapter's layers, such as "
            f"{missing[0]}; name the base that it was tuned on with --base"
        )
    head = base.lm.get_output_embeddings()
    of_head = [name for name in adapter.layers if modules[name] is head]
    if not of_head:
        return
    is_tied = head.weight is base.lm.get_input_embeddings().weight
    remedy = HEAD_REMEDY if is_tied else MERGE
    raise ModelError(
        f"adapter: is on the output head {of_head[0]}, which is not supported; {remedy}"
    )


def check_decoder_start(backbone: Backbone, verbaliser: Verbaliser, answer: str) -> None:
    """Check that the decoder is asked with the tokens that it was tuned with.

    Tuned on labels, mBART starts with the language that ends them, whatever its config says.

    Args:
        backbone: an encoder-decoder, or any other model, of which there is nothing to check.
        verbaliser: its answers.
        answer: one of them.

    Raises:
        ModelError: its config says another start.
    """
    if not backbone.seq2seq:
        return
    lm = backbone.lm
    start = lm.config.decoder_start_token_id
    # All others shift labels behind the start that their config says, and need one.
    if start is None and lm.config.model_type != "mbart":
        return
    labels = torch.tensor([backbone.tokenizer(text_target=answer).input_ids])
    decoder_inputs = lm.prepare_decoder_input_ids_from_labels(labels=labels.to(lm.device))
    first = int(decoder_inputs[0, 0])
    if first != start:
        raise ModelError(
            f"model '{backbone.name}': its decoder starts with token {first} where it is tuned on "
            f"labels, and its config says {start}; set decoder_start_token_id to {first} there"
        )


def sets_sentence(verbaliser: Verbaliser) -> str | None:
    """Of how many tokens an answer is the sum; None: of one each."""
    if not verbaliser.sets:
        return None
    yes_count = 1 + len(verbaliser.more_yes)
    no_count = 1 + len(verbaliser.more_no)
    return (
        f"liked is the sum of {yes_count} first tokens, and not liked of {no_count}: what is made "
        "from here on learns which of the two, and not in which form"
    )


def window_sentence(train: Examples, window: int) -> str | None:
    """How many prompts are longer than the window; None: all fit."""
    if not train.truncated:
        return None
    return (
        f"{train.truncated:,} of {len(train):,} training prompts are longer than the window of "
        f"{window} tokens, and lose their beginning; raise it with --set model.window"
    )


def check_rows(split: Split) -> None:
    """Check that a recommender's rows are enough to make it forget, and to measure that.

    Raises:
        DataError: a part that every measure needs has no rows, or those of one answer alone.
    """
    for name, need in NEEDS.items():
        part = getattr(split, name)
        if not len(part):
            raise DataError(f"rows: none are left for {name}, so {need}")
        if len(np.unique(part.labels)) < 2:
            raise DataError(
                f"rows: all {len(part)} of {name} have the same output, so nothing can be told "
                "from them; give both kinds"
            )


def calibration_sentence(split: Split) -> str | None:
    """What cannot be done for want of calibration users; None: there are some."""
    if len(split.calibration):
        return None
    return (
        "no calibration users: what a method would choose by them must be set, such as --set "
        "alpha=2; give rows of more users who were not tuned on with --held"
    )
