"""Whether a server answers as the run's own model does, on rows that hold no erased user."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...core.arrays import Floats, Ints
from ...core.errors import DataError, ServerError
from ...core.say import Say, no_words
from ...core.seeding import stream
from ...experiments.recipe import Recipe
from ...experiments.workspace import Workspace
from ...models.batches import FORWARD_BATCH_SIZE, Examples, batches_by_length
from ...models.recommender import Recommender
from ...runs.folder import Run
from ...runs.keys import controller_key
from ...runs.split_index import SplitIndex
from .users import may_be_asked
from .vllm_limits import MAX_LOGPROBS
from .vllm_server import ServedModel, VllmServer


@dataclass(frozen=True)
class CheckRows:
    """Rows that a server is asked about, and what it should answer.

    Attributes:
        prompts: n rows of token ids.
        answers: tokens of liked, and tokens of not liked: an answer may be any of several.
        expected: (n, 2) log-probabilities of both by our own model, in nats.
        places: (n,) place of the least probable of them among all tokens, counted from 1.
    """

    prompts: Sequence[Sequence[int]]
    answers: tuple[tuple[int, ...], tuple[int, ...]]
    expected: Floats
    places: Ints

    def __len__(self) -> int:
        return len(self.prompts)

    def sentences(self) -> list[str]:
        """What clients of these answers should know."""
        beyond = int((self.places > MAX_LOGPROBS).sum())
        if not beyond:
            return []
        return [
            f"on {beyond} of {len(self)} rows an answer is not among the {MAX_LOGPROBS} most "
            "probable tokens, whose log-probabilities vLLM tells: clients name it in "
            "allowed_token_ids, as this check does, or the server is started with a higher "
            "--max-logprobs"
        ]


def check_rows(run: Run, count: int, key: Path | None, say: Say = no_words) -> CheckRows:
    """Draw test rows of a run, and ask its own model about them, in float32.

    Args:
        run: holds a recommender that is no encoder-decoder.
        count: rows, at most.
        key: file of the controller's key; see `train`.
        say: told of what cannot be known of erased users.

    Raises:
        DataError: no test row is left, or rows that the run was tuned on are not in the data.
        RunError: the run was recorded under another key.
    """
    recipe = Recipe.build(run.record.recipe, place=str(run.path))
    index = SplitIndex.load(run.path, controller_key(key))
    space = Workspace(recipe, split_index=index, record=run.record)
    model = space.load(run)
    # The run's own template and tokenizer, whatever the recipe's file says by now.
    space.prompt_reader = model.prompt_reader
    # The index holds no erased row. Of a user of whom one row was erased, none is taken either.
    test = space.split.test
    test = test.take(may_be_asked(run, test, space.data, key, say))
    if not len(test):
        raise DataError(
            f"'{run.path}': no test row is left that holds no erased user, so nothing can be "
            "compared; swap a run that has some"
        )
    order = stream(recipe.seed, "rows of a swap").permutation(len(test))
    rows = space.encode(test.take(np.sort(order[:count])))
    expected, places = own_answers(model, rows)
    starts = rows.offsets[:-1]
    ends = rows.offsets[1:]
    prompts = [rows.tokens[a:b].tolist() for a, b in zip(starts, ends, strict=True)]
    return CheckRows(prompts, model.verbaliser.all_tokens, expected, places)


@torch.no_grad()
def own_answers(model: Recommender, rows: Examples) -> tuple[Floats, Ints]:
    """Log-probabilities of both answers among all tokens, (n, 2), and `CheckRows.places`, (n,)."""
    expected = np.zeros((len(rows), 2))
    places = np.zeros(len(rows), dtype=np.int64)
    # The recommender's logits have put the tokens of an answer together, and a server's have not.
    head = model.head._replace(sets=())
    yes_tokens, no_tokens = model.verbaliser.all_tokens
    with model.using():
        for index in batches_by_length(rows.lengths, FORWARD_BATCH_SIZE):
            logits = head.logits(model.hidden(model.collate(rows, index)))
            log_probabilities = logits.log_softmax(dim=1)
            for column, tokens in enumerate((yes_tokens, no_tokens)):
                joint = log_probabilities[:, list(tokens)].logsumexp(dim=1)
                expected[index, column] = joint.cpu().numpy()
            least_probable = logits[:, [*yes_tokens, *no_tokens]].amin(dim=1, keepdim=True)
            places[index] = 1 + (logits > least_probable).sum(dim=1).cpu().numpy()
    return expected, places


def refuse_short_window(server: VllmServer, base: ServedModel, rows: CheckRows) -> None:
    """Raise ServerError where the server takes no prompt as long as the longest of `rows`."""
    longest = max(map(len, rows.prompts)) + 1
    if base.max_tokens is not None and longest > base.max_tokens:
        raise ServerError(
            f"server '{server.url}': takes {base.max_tokens} tokens, and a prompt of this run with "
            f"its answer has {longest}; start it with a higher --max-model-len"
        )


def largest_difference(server: VllmServer, name: str, rows: CheckRows) -> float:
    """By how much model `name` of the server differs from ours at most, in nats; NaN: it may."""
    log_probabilities = server.log_probabilities(name, rows.prompts, rows.answers)
    return float(np.abs(log_probabilities - rows.expected).max())


def require_same(
    server: VllmServer,
    name: str,
    rows: CheckRows,
    tolerance: float,
    old_difference: float | None = None,
) -> float:
    """The largest difference of model `name`.

    Args:
        server: the server.
        name: of the model.
        rows: what is asked, and what should be answered.
        tolerance: by how much the answers may differ, in nats.
        old_difference: by how much those of the adapter that goes do; None: that does not matter.

    Raises:
        ServerError: it is above the tolerance, or above half of that of the adapter that goes: the
            answers could then as well be the old ones.
    """
    difference = largest_difference(server, name, rows)
    # Both are written so that NaN fails them.
    if not difference <= tolerance:
        raise ServerError(
            f"server '{server.url}': log-probabilities of the answers by '{name}' differ from the "
            f"run's own by up to {difference:.3g} on {len(rows)} rows, and --tolerance is "
            f"{tolerance:g}; see that it serves the run's base model, in a precision that "
            "suffices and without --logprobs-mode"
        )
    if old_difference is not None and not difference <= old_difference / 2:
        raise ServerError(
            f"server '{server.url}': log-probabilities of the answers by '{name}' differ from the "
            f"run's own by up to {difference:.3g} on {len(rows)} rows, and those of the adapter "
            f"that goes by {old_difference:.3g}: nothing says that they are not the old one's; "
            "see that the server reads the new folder, raise --rows, serve in a higher precision, "
            "or say --accept-alike"
        )
    return difference
