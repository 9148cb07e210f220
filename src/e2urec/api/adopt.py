"""Take over a recommender that was made elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from ..core.errors import ConfigError, ModelError
from ..core.say import Say, no_words
from ..core.seeding import stream
from ..data.sources.prompt_rows import as_setting
from ..data.written_prompts import WrittenPrompts
from ..experiments.packaged import resolve_model
from ..experiments.recipe import Recipe
from ..experiments.study import MEASURED_PARTS, answers_alone, results_alone
from ..experiments.workspace import Workspace
from ..models.adapted_layers import target_layers
from ..models.backbone import Backbone, load_backbone
from ..models.base_files import base_folder
from ..models.card import Card
from ..models.importing import (
    ForeignAdapter,
    is_adapter,
    model_folder,
    own_tokenizer,
    read_adapter,
    refuse_projectors,
)
from ..models.recommender import Recommender
from ..models.verbaliser import find_verbaliser, prompt_ids
from ..runs.files import write_json
from ..runs.folder import Run, create_run, open_run
from ..runs.keys import controller_key
from ..runs.record import RESULTS, BaseRecord, RunRecord, write_record
from ..runs.row_digests import RowKey
from ..runs.split_index import SplitIndex
from .adopt_checks import (
    MASS,
    calibration_sentence,
    check_answers,
    check_decoder_start,
    check_rows,
    check_scores,
    no_prompts,
    refuse_layers,
    refuse_limits,
    require_prompts,
    sets_sentence,
    window_sentence,
)

SAME_BASE = 0.9
"""Cosine of the embeddings of a base and of what was tuned from it: tuning barely moves them."""
CONTEXTS = 1000
"""Training prompts, at most, in which the answers' tokens are looked for."""


@dataclass(frozen=True)
class AdoptOptions:
    """What is known of a recommender beside its rows.

    Attributes:
        base: the language model that it was tuned from; None: what an adapter says itself.
        scores: `.npy` file of what its makers' own code says of the rows, in their order: P(liked).
        key: file of the controller's key; see `runs.keys.controller_key`.
        say: told what will not be possible, or not exactly; the results say what was found.
        min_mass: least mean probability of the two answers together on rows that it was tuned on.
    """

    base: str | None = None
    scores: Path | None = None
    key: Path | None = None
    say: Say = no_words
    min_mass: float = MASS


def adopt(recipe: Recipe, model: str, out: Path | str, options: AdoptOptions | None = None) -> Run:
    """Take over a recommender that was made elsewhere: the run is an original like any other.

    Args:
        recipe: `data.source` are the rows with their prompts. What it says of tuning is how
            retrained models and shadow models will be tuned; an adapter's own rank, scale and
            layers are put into it.
        model: folder or Hugging Face name of a LoRA adapter or of a whole model.
        out: folder to make.
        options: its base, and what is there to check it by.

    Raises:
        DataError: the rows cannot be used, or too few were held out to measure anything.
        ModelError: the model cannot be taken over exactly, or does not answer as its rows say.
        ConfigError: the recipe is of other data.
        RunError: `out` exists, the key cannot be used, or the disk is full.
    """
    options = options or AdoptOptions()
    secret = controller_key(options.key)
    source = model_folder(model)
    with create_run(Path(out)) as partial:
        space = Workspace(recipe, row_key=RowKey.under(secret))
        require_prompts(recipe.data)
        _check_rows(space)
        take = _take_adapter if is_adapter(source) else _take_model
        base = take(space, source, partial, options)
        loaded = Recommender.load(partial, None if (partial / "model").is_dir() else space.base)
        space.prompt_reader = loaded.prompt_reader
        results = _checked_results(space, loaded, options)
        write_json(partial / RESULTS, results)
        SplitIndex.of(space.split, space.row_key).save(partial)
        write_record(partial, _record(space, base), secret)
    return open_run(Path(out))


def _check_rows(space: Workspace) -> None:
    """Raise an error for rows that nothing could be made of, before a model is loaded."""
    if space.data.prompts is None or not space.template.verbatim:
        raise no_prompts(space.recipe.data.source)
    refuse_limits(space.recipe.data)
    check_rows(space.split)


def _prompts_of(space: Workspace) -> WrittenPrompts:
    prompts = space.data.prompts
    assert prompts is not None, "other rows were refused"
    return prompts


def _take_adapter(
    space: Workspace, source: Path, folder: Path, options: AdoptOptions
) -> BaseRecord:
    """Write the adapter as a run has it; the recipe then says of what base and form it is."""
    adapter = read_adapter(source)
    recipe = space.recipe
    name = _base_name(adapter, source, options)
    tuning = recipe.tuning.model_copy(update={"lora": adapter.lora})
    model = recipe.model.model_copy(update={"name": name})
    space.recipe = recipe.model_copy(update={"model": model, "tuning": tuning})
    try:
        base = space.base
    except ModelError as error:
        if options.base is not None:
            raise
        raise ModelError(
            f"adapter '{source}': says that it is of '{name}', which cannot be loaded; name its "
            f"base with --base, unless this can be mended: {error}"
        ) from error
    refuse_layers(base, adapter)
    if set(target_layers(base.lm, adapter.lora.targets, 0)) != set(adapter.layers):
        options.say(
            f"the adapter is on {len(adapter.layers)} layers, and not on just those that are "
            "called so: retrained and shadow models will be tuned on all of them"
        )
    tokenizer = own_tokenizer(source)
    if tokenizer is not None and not _reads_alike(space, base, tokenizer):
        raise ModelError(
            f"adapter '{source}': its own tokenizer reads prompts otherwise than that of its base; "
            "put its tokenizer's files into a copy of the base, and name that with --base"
        )
    _note_answers(space, base)
    place, revision = base_folder(resolve_model(name))
    adapter.save(folder / "adapter", str(place if revision is None else name), revision)
    _write_card(space, folder, adapter.dtype)
    return space.base_record()


def _base_name(adapter: ForeignAdapter, source: Path, options: AdoptOptions) -> str:
    if options.base is not None:
        return options.base
    if adapter.base is None:
        raise ModelError(
            f"adapter '{source}': does not say of which base it is; name it with --base"
        )
    if adapter.revision not in (None, "main"):
        raise ModelError(
            f"adapter '{source}': is of revision {adapter.revision} of '{adapter.base}'; download "
            "that and name its folder with --base"
        )
    return adapter.base


def _take_model(
    space: Workspace, source: Path, folder: Path, options: AdoptOptions
) -> BaseRecord | None:
    """Write the model as a run has it, in the precision in which it came."""
    name = options.base or str(source)
    model = space.recipe.model.model_copy(update={"name": name, "layers": None})
    space.recipe = space.recipe.model_copy(update={"model": model})
    refuse_projectors(source)
    whole = load_backbone(source, dtype="auto")
    _note_answers(space, whole)
    dtype = str(whole.lm.dtype).removeprefix("torch.")
    whole.lm.save_pretrained(str(folder / "model"))
    whole.tokenizer.save_pretrained(str(folder / "model"))
    _write_card(space, folder, dtype)
    reads = _Reading(whole.tokenizer, whole.lm.get_input_embeddings().weight)
    # Its weights go before those of the base come, and these before it is read back.
    del whole
    if options.base is None:
        options.say(
            "the base of the model is not known: nothing can be retrained, and no shadow model "
            "tuned; name it with --base to be able to"
        )
        return None
    _check_base(space, reads)
    space.release_base()
    return space.base_record()


class _Reading(NamedTuple):
    """What is compared of a model and its base: the tokenizer, and the embeddings (V, d)."""

    tokenizer: Any
    embeddings: torch.Tensor


def _check_base(space: Workspace, reads: _Reading) -> None:
    """Raise ModelError unless the base reads prompts as the model that is said to be made of it."""
    base = space.base
    if not _reads_alike(space, base, reads.tokenizer):
        raise ModelError(
            f"base '{base.name}': tokenises prompts otherwise than the model; name the base that "
            "it was tuned from"
        )
    weights = (base.lm.get_input_embeddings().weight, reads.embeddings)
    embeddings = [weight.detach().float() for weight in weights]
    shapes = [tuple(weight.shape) for weight in embeddings]
    if shapes[0] != shapes[1]:
        raise ModelError(
            f"base '{base.name}': has embeddings of shape {shapes[0]}, the model {shapes[1]}; name "
            "the base that it was tuned from, resized as the model was"
        )
    own, tuned = (weight.flatten() for weight in embeddings)
    similarity = F.cosine_similarity(own, tuned, dim=0).item()
    if similarity < SAME_BASE:
        raise ModelError(
            f"base '{base.name}': its embeddings are not those that the model was tuned from "
            f"(cosine {similarity:.2f}); name the base that it was tuned from"
        )


def _reads_alike(space: Workspace, base: Backbone, tokenizer: Any) -> bool:
    """Whether a tokenizer makes the same tokens of the rows' own prompts as that of the base."""
    texts = _contexts(space)
    form = {"seq2seq": base.seq2seq, "chat": space.template.chat}
    if prompt_ids(base.tokenizer, texts, **form) != prompt_ids(tokenizer, texts, **form):
        return False
    if not base.seq2seq:
        return True
    # mBART writes the language of the answer, which one tokenizer may know and the other not.
    texts = [text for forms in _prompts_of(space).answers for text in forms]
    readers = (base.tokenizer, tokenizer)
    base_rows, own_rows = (reader(text_target=texts).input_ids for reader in readers)
    return bool(base_rows == own_rows)


def _contexts(space: Workspace) -> list[str]:
    """Random training prompts."""
    rows = space.split.train.rows
    order = stream(space.recipe.seed, "contexts").permutation(len(rows))
    return _prompts_of(space).of_rows(rows[order[:CONTEXTS]])


def _note_answers(space: Workspace, backbone: Backbone) -> None:
    """Put the tokens of the answers, as they follow the rows' own prompts, into the recipe."""
    verbaliser = find_verbaliser(
        backbone.tokenizer,
        _contexts(space),
        seq2seq=backbone.seq2seq,
        answers=_prompts_of(space).answers,
        chat=space.template.chat,
    )
    check_decoder_start(backbone, verbaliser, _prompts_of(space).answers[0][0])
    recipe = space.recipe
    if recipe.model.answers not in (None, verbaliser.tokens_of_answers):
        raise ConfigError(
            "model.answers: are not the tokens of the rows' outputs, which import finds itself; "
            "leave it out, and name the outputs with --answers"
        )
    if recipe.model.prefix not in ((), verbaliser.prefix):
        raise ConfigError(
            "model.prefix: are not the tokens that the decoder writes before the rows' outputs, "
            "which import finds itself; leave it out"
        )
    tokens = {"answers": verbaliser.tokens_of_answers, "prefix": verbaliser.prefix}
    model = recipe.model.model_copy(update=tokens)
    # The outputs too: of the rows that are left after requests they might be guessed otherwise.
    words = [as_setting(forms) for forms in _prompts_of(space).answers]
    options = recipe.data.options | {"answers": words}
    data = recipe.data.model_copy(update={"options": options})
    space.recipe = recipe.model_copy(update={"model": model, "data": data})


def _write_card(space: Workspace, folder: Path, dtype: str) -> None:
    model = space.recipe.model
    card = Card(
        template=space.template.name,
        window=model.window,
        base=model.name,
        answers=model.answers,
        prefix=model.prefix,
        dtype=dtype,
    )
    card.write(folder)


def _checked_results(space: Workspace, model: Recommender, options: AdoptOptions) -> dict[str, Any]:
    """How the model scores, after checks that it answers its rows as it was tuned to."""
    train = space.encode(space.split.train)
    answers = check_answers(model, train, seed=space.recipe.seed, min_mass=options.min_mass)
    sentences = [
        answers.sentence(),
        sets_sentence(model.verbaliser),
        calibration_sentence(space.split),
    ]
    if options.scores is not None:
        sentences.append(check_scores(space, model, options.scores))
    sentences.append(window_sentence(train, model.window))
    facts = [sentence for sentence in sentences if sentence is not None]
    rows = {name: space.encode(getattr(space.split, name)) for name in MEASURED_PARTS}
    measured_answers = answers_alone(space.recipe, model, rows)
    results = results_alone(space.recipe, measured_answers).as_dict()
    return results | {"import": answers.as_dict() | {"sentences": facts}}


def _record(space: Workspace, base: BaseRecord | None) -> RunRecord:
    return RunRecord(
        kind="original",
        recipe=space.recipe.model_dump(mode="json"),
        seed=space.recipe.seed,
        seconds=space.costs.seconds,
        rows={
            "train": len(space.split.train),
            "duplicates_dropped": space.data.duplicates,
        },
        base=base,
    )
