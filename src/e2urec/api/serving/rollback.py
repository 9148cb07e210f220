"""What takes a swap back that does not come to its end: the server then serves what it did."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ...core.errors import E2URecError, ServerError
from ...core.process import uninterrupted
from ...core.say import Say
from .http_calls import NoAnswerError
from .vllm_server import VllmServer

ATTEMPTS = 2
"""A call that got no answer may take effect after the next one, so the list is read again."""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Step:
    """A step that takes back a part of a swap.

    Attributes:
        goal: what it is to bring about, in words.
        call: brings it about.
    """

    goal: str
    call: Callable[[], object]


class Rollback:
    """The steps that take a swap back, in the order in which what they undo was begun.

    Where the block ends with an error, or is interrupted, they are taken, last first.
    """

    def __init__(self, server: VllmServer, say: Say) -> None:
        """Begin with no steps.

        Args:
            server: for the messages.
            say: told how it went where there is no error to say it.
        """
        self.server = server
        self.say = say
        self.steps: list[Step] = []
        self.is_whole = True

    def add(self, goal: str, call: Callable[[], object]) -> None:
        """Take this step if the block does not end well; added before what it undoes is begun."""
        self.steps.append(Step(goal, call))

    def drop_last(self) -> None:
        """Forget the last step: what it would undo was not done here, but by somebody else."""
        self.steps.pop()
        self.is_whole = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or not self.steps:
            return
        try:
            with uninterrupted():
                sentence = self._take_back()
        except KeyboardInterrupt:
            # It came meanwhile, and was held back until all was done.
            self.say(sentence)
            raise
        if isinstance(error, E2URecError):
            raise type(error)(f"{error}; {sentence}") from error
        self.say(sentence)

    def _take_back(self) -> str:
        """Take all steps, whichever of them fail; what there is to say of it."""
        failures = []
        while self.steps:
            step = self.steps.pop()
            try:
                step.call()
            # Whatever it is, the remaining steps are still to be taken.
            except Exception as failure:
                failures.append(f"{step.goal} ({_words(failure)})")
        if failures:
            return (
                f"and not all could be taken back: missing is {'; '.join(failures)}; compare the "
                f"list of models at {self.server.url}/v1/models with what it should be"
            )
        if not self.is_whole:
            return "all that was done here was taken back, and what somebody else changed stays"
        return "all was taken back, so the server serves what it did before"


def _words(failure: Exception) -> str:
    return str(failure) if isinstance(failure, E2URecError) else type(failure).__name__


def settle(server: VllmServer, name: str, root: str | None, ours: str) -> None:
    """Have `name` served from folder `root`, whatever a call did to it that got no answer.

    Args:
        server: the server.
        name: of an adapter.
        root: as the server sees it; None: nothing shall have that name.
        ours: the folder that the swap may have put there.

    Raises:
        ServerError: it cannot be had, or somebody else has put another folder there.
    """
    failure = ServerError(f"server '{server.url}': '{name}' is not served from '{root}'")
    for _ in range(ATTEMPTS):
        try:
            _settle_once(server, name, root, ours)
            if root_of(server, name) == root:
                return
        except ServerError as error:
            failure = error
    raise failure


def _settle_once(server: VllmServer, name: str, root: str | None, ours: str) -> None:
    current = root_of(server, name)
    if root is not None and current == root:
        return
    if current not in (None, ours):
        raise ServerError(
            f"server '{server.url}': '{name}' is served from '{current}', which somebody else put "
            "there, and stays so"
        )
    # Also where it is not on the list: a load that got no answer may be under way, and the server
    # lets this wait for it.
    server.unload(name, missing_ok=True)
    if root is None:
        return
    try:
        server.load(name, root)
    except NoAnswerError:
        # It may still be under way. To unload it then would take away what was to come back.
        if not _appears(server, name, root):
            raise


def _appears(server: VllmServer, name: str, root: str) -> bool:
    """Whether `name` is served from `root` within the time of one more call."""
    deadline = time.monotonic() + server.timeout
    while root_of(server, name) != root:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def root_of(server: VllmServer, name: str) -> str | None:
    """The folder from which `name` is served; None: nothing has that name."""
    model = server.models().get(name)
    return None if model is None else model.root
