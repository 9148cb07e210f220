"""One request after another: does what was forgotten stay so, and what does it cost the others?

    python benchmarks/chain.py --original RUN [--requests 5] [--share 0.04] [--json]

`RUN` is a run folder of `e2urec train`. Each request names other users and starts from the result
of the one before, whose rows stay out of what is retained. After each, the model is asked about the
rows of every request. The reference is tuned without the users of all of them, with two seeds:
M_auc is 1 where nothing was done and 0 where it is as if retrained.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common import (
    RequestCase,
    add_json,
    add_original,
    interval_text,
    measure_only,
    option_parser,
    recipe_of,
)
from e2urec.data.requests import ErasureRequest
from e2urec.evaluation.answers import Answers
from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.measures.headroom import Headroom
from e2urec.evaluation.measures.memory import Memory
from e2urec.evaluation.measures.utility import Utility
from e2urec.evaluation.results import Results
from e2urec.evaluation.roles import ORIGINAL, Role, retrained, unlearned_by
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.request_rows import RequestRows
from e2urec.experiments.study import unlearning_seconds
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.methods.retrain import Retrain
from e2urec.models.batches import Examples
from e2urec.models.precision import Precision
from e2urec.models.predictions import Predictions, predict
from e2urec.models.recommender import Recommender
from e2urec.runs.folder import Run, open_run
from e2urec.runs.row_digests import RowKey
from e2urec.runs.split_index import SplitIndex

# Two retrained models are the fewest whose spread says how much a seed alone changes.
RETRAINED = (1, 2)
MEASURES = (Utility(), Memory(), Headroom())

ModelAnswers = list[Answers]
"""One model's answers, for each request in turn."""


@dataclass(frozen=True)
class Questions:
    """The rows that every model is asked about.

    Attributes:
        requests: the rows of each request.
        test: the same test rows for all requests.
        unseen: the same rows of unseen users for all requests.
        precision: of the answers.
    """

    requests: list[Examples]
    test: Examples
    unseen: Examples
    precision: Precision

    def ask(self, model: Recommender) -> ModelAnswers:
        """What a model says of the rows of each request."""
        test = self._predict(model, self.test)
        unseen = self._predict(model, self.unseen)
        answers = []
        for rows in self.requests:
            forget = self._predict(model, rows)
            answers.append(Answers(test=test, forget=forget, unseen=unseen))
        return answers

    def _predict(self, model: Recommender, rows: Examples) -> Predictions:
        return predict(model, rows, precision=self.precision)


@dataclass
class Chain:
    """The models of a chain of requests.

    Attributes:
        rows: how many each request names.
        answers: of each model.
        seconds: that each request took.
    """

    rows: list[int]
    answers: dict[Role, ModelAnswers] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)


def draw_requests(space: Workspace, count: int, share: float) -> list[ErasureRequest]:
    """`count` requests of `share` of the training users each, none of them twice."""
    draw = space.recipe.request
    whole_draw = draw.model_copy(update={"ratio": count * share})
    users = space.draw(whole_draw).users
    random = np.random.default_rng(draw.seed)
    # A request keeps its users sorted by id, and ids may follow the order in which users joined.
    shuffled_users = random.permutation(np.array(users))
    parts = np.array_split(shuffled_users, count)
    return [ErasureRequest(tuple(part)) for part in parts]


def measure(run: Run, count: int, share: float) -> tuple[Recipe, Chain]:
    """Put the requests to an original, one after another, and retrain without all of them."""
    recipe = recipe_of(run)
    space = Workspace(recipe)
    original = space.load(run)
    space.prompt_reader = original.prompt_reader
    requests = draw_requests(space, count, share)
    union = RequestCase.of(space, original, union_of(requests))
    questions = Questions(
        requests=[forget_rows(space, request) for request in requests],
        test=union.rows.test,
        unseen=union.rows.unseen,
        precision=recipe.tuning.schedule.precision,
    )
    row_counts = [len(rows) for rows in questions.requests]
    chain = Chain(row_counts)
    chain.answers[ORIGINAL] = questions.ask(original)
    unlearn_in_turn(space, original, requests, questions, chain)
    for number in RETRAINED:
        model = retrain(run, space, union.rows, number)
        chain.answers[retrained(number)] = questions.ask(model)
        print(f"retrained {number}", file=sys.stderr)
    return recipe, chain


def union_of(requests: Sequence[ErasureRequest]) -> ErasureRequest:
    """One request for the users of all."""
    users: list[str] = []
    for request in requests:
        users += request.users
    return ErasureRequest(tuple(users))


def forget_rows(space: Workspace, request: ErasureRequest) -> Examples:
    """The rows of a request, tokenised."""
    parts = space.resolve(request)
    return space.encode(parts.forget)


def unlearn_in_turn(
    space: Workspace,
    original: Recommender,
    requests: Sequence[ErasureRequest],
    questions: Questions,
    chain: Chain,
) -> None:
    """Put each request to the result of the one before; answers and seconds go into `chain`."""
    model = original
    # Nothing of it is written, so any key will do.
    split_index = SplitIndex.of(space.split, space.row_key)
    for number, request in enumerate(requests, start=1):
        # The rows of earlier requests are in the index no more, and so in no part of the split.
        reader = model.prompt_reader
        later_space = Workspace(space.recipe, prompt_reader=reader, split_index=split_index)
        parts = later_space.resolve(request)
        case = RequestCase(later_space, model, later_space.rows(parts))
        method = build("e2urec")
        task = case.task(method)
        model = method.unlearn(task)
        split_index = split_index.without(parts.forget.interactions, parts.erased, RowKey.random())
        seconds = unlearning_seconds(task.costs)
        chain.seconds.append(seconds)
        role = after_request(number)
        chain.answers[role] = questions.ask(model)
        print(f"request {number}: {len(task.forget)} rows, {seconds:.1f} s", file=sys.stderr)


def retrain(run: Run, space: Workspace, rows: RequestRows, number: int) -> Recommender:
    """Tune the base on what all requests together leave."""
    method = Retrain(number=number)
    # Earlier requests have used the first copy of the original up.
    original = space.load(run)
    case = RequestCase(space, original, rows)
    task = case.task(method)
    return method.unlearn(task)


def after_request(number: int) -> Role:
    """The model that has forgotten so many requests."""
    return unlearned_by(f"after request {number}")


def report_of(recipe: Recipe, chain: Chain) -> dict[str, Any]:
    """M_auc of each request after each, test AUC, and what there was to forget."""
    results = []
    memory = {}
    test_aucs = {}
    for place in range(len(chain.rows)):
        models = {role: answers[place] for role, answers in chain.answers.items()}
        evidence = Evidence(models, seed=recipe.seed)
        results.append(measure_only(evidence, MEASURES))
    for place in range(len(chain.rows)):
        role = after_request(place + 1)
        memory[role.key] = memory_row(results, role)
    for role in (ORIGINAL, retrained(1)):
        test_aucs[role.key] = test_auc(results[0], role)
    headroom = [result.figure("headroom", "auc") for result in results]
    return {
        "rows": chain.rows,
        "seconds": chain.seconds,
        "memory": memory,
        "test_auc": test_aucs,
        "headroom": [figure.as_dict() for figure in headroom],
    }


def memory_row(results: Sequence[Results], role: Role) -> dict[str, Any]:
    """M_auc of each request in one model, and the model's test AUC."""
    row = {}
    for number, result in enumerate(results, start=1):
        memory = result.figure("memory", "auc", role)
        row[f"request {number}"] = memory.as_dict()
    # Test rows are the same for all requests, so any of the results has it.
    row["test AUC"] = test_auc(results[0], role)
    return row


def test_auc(results: Results, role: Role) -> dict[str, float | int]:
    """A model's AUC on the test rows."""
    figure = results.figure("utility", "auc", role)
    return figure.as_dict()


def show(report: dict[str, Any]) -> None:
    """Print a line for each model."""
    seconds = [round(value, 1) for value in report["seconds"]]
    print(f"rows {report['rows']}, seconds {seconds}")
    for name, row in report["memory"].items():
        cells = [interval_text(figure, 2) for figure in row.values()]
        print(name, *cells, sep=" | ")
    for name, figure in report["test_auc"].items():
        print(f"{name}: test AUC {figure['value']:.3f}")


def options() -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    add_original(parser)
    parser.add_argument("--requests", type=int, default=5, help="requests in a row")
    parser.add_argument("--share", type=float, default=0.04, help="of the training users, in each")
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    """Read the arguments; measure; print."""
    arguments = options()
    run = open_run(arguments.original)
    recipe, chain = measure(run, arguments.requests, arguments.share)
    report = report_of(recipe, chain)
    if arguments.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
