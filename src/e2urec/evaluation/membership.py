"""Membership inference: do a model's answers give away whose rows it was tuned on?

D_f are the members, the rows of the unseen users the non-members. Two attacks give each row a score that should be
higher for members: the log-likelihood of its label (loss attack: Yeom et al. 2018), and that less what models answer
that never saw the row (offline likelihood ratio: Carlini et al. 2022, with one pooled variance). The latter come from
*shadows*: adapters on the base, each tuned on half of the users of D_r and of the unseen users. No shadow sees D_f, so
their adapters may be kept; what they answer about D_f is not.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..core.arrays import Floats, Ints, Mask
from ..core.errors import RunError
from ..core.seeding import derive, stream
from ..data.prompts import PromptTemplate
from ..metrics.bootstrap import Bootstrap, Interval, advantage, tpr_at_fpr, user_bootstrap
from ..metrics.classification import row_losses
from ..models import adapters
from ..models.adapters import LoRA
from ..models.backbone import Backbone
from ..models.batches import Examples, concatenate
from ..models.predictions import Predictions, predict
from ..models.recommender import Recommender
from ..training.loop import Phase, Progress, silent
from ..training.supervised import Tuning, tune

Answers = Mapping[str, Predictions]
PARTS = ("forget", "unseen")
NEGATIVES = 1000
"""Non-members that a true positive rate at 1% false positives needs."""


class Shadows(BaseModel):
    """How shadow models are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(
        8,
        ge=2,
        multiple_of=2,
        description="shadow models, in pairs with complementary halves of the users",
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="highest learning rate of a shadow's adapter"
    )
    lora: LoRA = Field(LoRA(targets="all"), description="adapter of a shadow")

    def tuning(self, original: Tuning) -> Tuning:
        """The original's schedule, with an adapter and its learning rate."""
        changes = {"learning_rate": self.learning_rate, "patience": None}
        return Tuning(schedule=original.schedule.model_copy(update=changes), lora=self.lora)

    def rows(self, retain: int, unseen: int, tuning: Tuning) -> int:
        """Rows read to train them all: what they cost."""
        return self.count * tuning.schedule.epochs * (retain + unseen) // 2


@dataclass(frozen=True)
class ShadowScores:
    """What models answer that never saw a row: mean log-odds over half of the shadows, (n,) each.

    Attributes:
        forget: of D_f's rows. All shadows are outsiders there, but as many speak as for the unseen users' rows:
            a mean over more would be less noisy, and the attack would detect that.
        unseen: of the unseen users' rows.
        spread: pooled standard deviation of one shadow's log-odds.
    """

    forget: Floats
    unseen: Floats
    spread: float


def halves(users: Ints, count: int, *, seed: int) -> Mask:
    """Whose rows each shadow is tuned on: (count, n) for the users (n,) of rows; lines 2j and 2j + 1 complement."""
    ids, user = np.unique(users, return_inverse=True)
    random = stream(seed, "halves")
    lines = []
    for _ in range(count // 2):
        inside = np.zeros(len(ids), dtype=bool)
        inside[random.permutation(len(ids))[: len(ids) // 2]] = True
        lines += [inside, ~inside]
    return np.stack(lines)[:, user]


def outsiders(
    base: Backbone,
    template: PromptTemplate,
    tuning: Tuning,
    rows: Mapping[str, Examples],
    shadows: Shadows,
    *,
    window: int,
    seed: int,
    cache: Path | None = None,
    progress: Progress = silent,
) -> ShadowScores:
    """Train the shadows, or take those in `cache`, and ask them about the rows they were not tuned on.

    Args:
        base: the model before any user's data.
        template: of the prompts.
        tuning: the original's.
        rows: `retain`, `unseen` and `forget`; the last are only asked about.
        shadows: how many and how.
        window: longest prompt in tokens.
        seed: of the halves and of each shadow.
        cache: folder in which their adapters are kept, under a hash of all that they depend on.
        progress: told of each step.
    """
    parts = [rows[name] for name in ("retain", "unseen", "forget")]
    inside = halves(np.concatenate([part.users for part in parts]), shadows.count, seed=seed)
    edges = np.cumsum([len(part) for part in parts])
    in_retain, in_unseen, in_forget = np.split(inside, edges[:-1], axis=1)
    how = shadows.tuning(tuning)
    folder = (
        None
        if cache is None
        else cache / _fingerprint(base, template, how, parts[:2], window, seed)
    )
    answers: dict[str, list[Floats]] = {"forget": [], "unseen": []}
    for k in range(shadows.count):
        train = concatenate(
            [
                part.take(np.flatnonzero(half[k]))
                for part, half in zip(parts, (in_retain, in_unseen), strict=False)
            ]
        )
        model = _shadow(
            base,
            template,
            how,
            train,
            folder and folder / f"{k:02}",
            window,
            derive(seed, "shadow", k),
            progress,
        )
        for name in answers:
            answers[name].append(predict(model, rows[name], precision=how.schedule.precision).odds)
    return gather(np.stack(answers["forget"]), ~in_forget, np.stack(answers["unseen"]), ~in_unseen)


def gather(forget: Floats, forget_out: Any, unseen: Floats, unseen_out: Any) -> ShadowScores:
    """Mean and pooled spread of the answers (shadows, n) of those that are out (shadows, n); half of them a row."""
    means, squares, freedom = [], 0.0, 0
    for odds, out in ((forget, forget_out), (unseen, unseen_out)):
        mean = np.where(out, odds, 0.0).sum(0) / out.sum(0)
        squares += float((np.where(out, odds - mean, 0.0) ** 2).sum())
        freedom += int(out.sum()) - odds.shape[1]
        means.append(mean)
    return ShadowScores(means[0], means[1], float(np.sqrt(squares / freedom)) if freedom else 1.0)


def attacks(
    model: Answers,
    outside: ShadowScores | None,
    control: Answers | None = None,
    *,
    seed: int,
    resamples: int = 2000,
) -> dict[str, dict[str, Interval]]:
    """How well each attack tells D_f from the unseen users: attack → `auc`, `advantage`, `tpr_at_fpr` (TPR at 1% FPR).

    Attacks are `loss` and, with outsiders, `ratio`, by row and (`loss_user`, `ratio_user`) by mean over a user's rows.
    0.5 of AUC is chance. `tpr_at_fpr` needs a thousand non-members and is left out otherwise.

    Args:
        model: the answers attacked, to `forget` and `unseen`.
        outside: answers of models that never saw either.
        control: a retrained model's answers, which give nothing away. Where they seem to (an AUC off chance: the two
            groups of users differ by nature) only `auc_beyond`, the model's AUC less theirs, means anything.
        seed: of the bootstrap.
        resamples: of it.
    """
    users = np.concatenate([model[part].users for part in PARTS])
    member = np.repeat([1, 0], [len(model[part].users) for part in PARTS])
    ids, user = np.unique(users, return_inverse=True)
    of_user = np.isin(ids, model["forget"].users).astype(int)
    boots = [
        user_bootstrap(who, group, resamples=resamples, seed=seed)
        for who, group in ((users, member), (ids, of_user))
    ]
    scores = _scores(model, outside)
    others = scores if control is None else _scores(control, outside)
    found = {}
    for name, rows in scores.items():
        means = [
            np.bincount(user, weights=each) / np.bincount(user) for each in (rows, others[name])
        ]
        found[name] = _detected(boots[0], member, rows, None if control is None else others[name])
        found[f"{name}_user"] = _detected(
            boots[1], of_user, means[0], None if control is None else means[1]
        )
    return found


def _scores(model: Answers, outside: ShadowScores | None) -> dict[str, Floats]:
    """Attack → a score a row of D_f and then of the unseen users, higher for members."""
    found = {"loss": [-row_losses(model[part].labels, model[part].odds) for part in PARTS]}
    if outside is not None:
        found["ratio"] = [
            (2.0 * model[part].labels - 1)
            * (model[part].odds - getattr(outside, part))
            / outside.spread
            for part in PARTS
        ]
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _detected(
    boot: Bootstrap, member: Ints, scores: Floats, control: Floats | None
) -> dict[str, Interval]:
    figures = {"auc": boot.auc(member, scores), "advantage": boot.ranked(member, scores, advantage)}
    if np.sum(member == 0) >= NEGATIVES:
        figures["tpr_at_fpr"] = boot.ranked(member, scores, tpr_at_fpr(0.01))
    if control is not None:
        figures["auc_beyond"] = figures["auc"] - boot.auc(member, control)
    return {name: boot.interval(figure) for name, figure in figures.items()}


def _shadow(
    base: Backbone,
    template: PromptTemplate,
    tuning: Tuning,
    train: Examples,
    folder: Path | None,
    window: int,
    seed: int,
    progress: Progress,
) -> Recommender:
    if folder is not None and folder.is_dir():
        fresh = base.fresh()
        lm = adapters.load_adapter(fresh.lm, folder, "original")
        return Recommender(
            Backbone(lm, base.tokenizer, base.name), template, active=("original",), window=window
        )
    name = "shadow" if folder is None else f"shadow {folder.name}"
    untuned = Recommender(base, template, window=window)
    model, _ = tune(untuned, tuning, train, None, Phase(name, seed, progress))
    if folder is not None:
        half = folder.with_name(f"{folder.name}.partial")
        try:
            adapters.save_adapter(model.lm, "original", half)
            half.rename(folder)
        except OSError as error:
            raise RunError(
                f"'{folder}': the shadow model cannot be kept there ({error.strerror})"
            ) from error
    return model


def _fingerprint(
    base: Backbone,
    template: PromptTemplate,
    tuning: Tuning,
    parts: Sequence[Examples],
    window: int,
    seed: int,
) -> str:
    """Hash of all that the shadows depend on: the base's weights, the rows, the settings, the seed."""
    digest = hashlib.sha256(
        repr([base.name, template.name, tuning.model_dump_json(), window, seed]).encode()
    )
    for tensor in base.lm.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    for part in parts:
        for column in (part.tokens, part.offsets, part.labels, part.users):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:32]
