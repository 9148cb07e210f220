"""Whether a server answers as the run's own model does, on rows that hold no erased user."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..core.arrays import Floats, Ints, Mask
from ..core.errors import DataError, ServerError
from ..core.seeding import stream
from ..data.samples import Samples
from ..experiments.recipe import Recipe
from ..experiments.workspace import Workspace
from ..models.batches import FORWARD_BATCH_SIZE, Examples, batches_by_length
from ..models.recommender import Recommender
from ..runs.folder import Run
from ..runs.keys import controller_key
from ..runs.split_index import SplitIndex
from .request import erased_rows_of
from .vllm_limits import MAX_LOGPROBS
from .vllm_server import ServedModel, VllmServer


@dataclass(frozen=True)
class CheckRows:
    """Rows that a server is asked about, and what it should answer.

    Attributes:
        prompts: n rows of token ids.
        answers: k tokens: all of liked, then all of not liked.
        expected: (n, k) log-probabilities of each by our own model, in nats.
        places: (n,) place of the least probable of them among all tokens, counted from 1.
    """

    prompts: Sequence[Sequence[int]]
    answers: tuple[int, ...]
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


def check_rows(run: Run, count: int, key: Path | None) -> CheckRows:
    """Draw test rows of a run, and ask its own model about them, in float32.

    Args:
        run: holds a recommender that is no encoder-decoder.
        count: rows, at most.
        key: file of the controller's key; see `train`.

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
    test = test.take(~_of_erased_users(run, space, test, key))
    if not len(test):
        raise DataError(
            f"'{run.path}': no test row is left that holds no erased user, so nothing can be "
            "compared; swap a run that has some"
        )
    order = stream(recipe.seed, "rows of a swap").permutation(len(test))
    rows = space.encode(test.take(np.sort(order[:count])))
    liked, not_liked = model.verbaliser.all_tokens
    answers = (*liked, *not_liked)
    expected, places = own_answers(model, rows, answers)
    starts = rows.offsets[:-1]
    ends = rows.offsets[1:]
    prompts = [rows.tokens[a:b].tolist() for a, b in zip(starts, ends, strict=True)]
    return CheckRows(prompts, answers, expected, places)


def _of_erased_users(run: Run, space: Workspace, samples: Samples, key: Path | None) -> Mask:
    """(n,) True for samples of users of whom a row that is still in the data was erased."""
    erased = erased_rows_of(run, key)
    if erased is None:
        return np.zeros(len(samples), dtype=bool)
    users = space.data.user[erased.marked(space.data)]
    return np.isin(samples.users, users)


@torch.no_grad()
def own_answers(model: Recommender, rows: Examples, answers: Sequence[int]) -> tuple[Floats, Ints]:
    """Log-probabilities of k tokens among all, (n, k), and `CheckRows.places`, (n,)."""
    expected = np.zeros((len(rows), len(answers)))
    places = np.zeros(len(rows), dtype=np.int64)
    tokens = list(answers)
    # A server knows nothing of tokens that mean the same answer: it tells of each by itself.
    head = model.head._replace(sets=())
    with model.using():
        for index in batches_by_length(rows.lengths, FORWARD_BATCH_SIZE):
            logits = head.logits(model.hidden(model.collate(rows, index)))
            log_probabilities = logits.log_softmax(dim=1)
            expected[index] = log_probabilities[:, tokens].cpu().numpy()
            least_probable = logits[:, tokens].amin(dim=1, keepdim=True)
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


def require_same(server: VllmServer, name: str, rows: CheckRows, tolerance: float) -> float:
    """The largest difference of model `name`.

    Raises:
        ServerError: it is above the tolerance.
    """
    difference = largest_difference(server, name, rows)
    # Written so that NaN fails it.
    if not difference <= tolerance:
        raise ServerError(
            f"server '{server.url}': log-probabilities of the answers by '{name}' differ from the "
            f"run's own by up to {difference:.3g} on {len(rows)} rows, and --tolerance is "
            f"{tolerance:g}; see that it serves the run's base model, in a precision that "
            "suffices and without --logprobs-mode"
        )
    return difference
