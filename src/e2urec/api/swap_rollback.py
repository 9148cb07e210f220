"""What takes a swap back that does not come to its end: the server then serves what it did."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from ..core.errors import E2URecError, ServerError
from ..core.process import uninterrupted
from ..core.say import Say
from .vllm_server import VllmServer

ATTEMPTS = 2
"""A call that got no answer may take effect after the next one, so the list is read again."""
SECONDS = 30.0
"""Longest wait for an answer meanwhile: whoever interrupted a swap does not wait for minutes."""


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
        self.steps: list[Callable[[], object]] = []

    def add(self, step: Callable[[], object]) -> None:
        """Take `step` if the block does not end well; added before what it undoes is begun."""
        self.steps.append(step)

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
        self.server.timeout = min(self.server.timeout, SECONDS)
        failures = []
        while self.steps:
            try:
                self.steps.pop()()
            except ServerError as failure:
                failures.append(str(failure))
        if not failures:
            return "all was taken back, so the server serves what it did before"
        return (
            f"and not all could be taken back: {failures[0]}; compare the list of models at "
            f"{self.server.url}/v1/models with what it should be"
        )


def settle(server: VllmServer, name: str, root: str | None) -> None:
    """Have `name` served from folder `root`, whatever a call did to it that got no answer.

    Args:
        server: the server.
        name: of an adapter.
        root: as the server sees it; None: nothing shall have that name.

    Raises:
        ServerError: it cannot be had.
    """
    failure = ServerError(f"server '{server.url}': '{name}' is not served from '{root}'")
    for _ in range(ATTEMPTS):
        try:
            _settle_once(server, name, root)
            if root_of(server, name) == root:
                return
        except ServerError as error:
            failure = error
    raise failure


def _settle_once(server: VllmServer, name: str, root: str | None) -> None:
    if root is not None and root_of(server, name) == root:
        return
    # Also where it is not on the list: a load that got no answer may be under way, and the server
    # lets this wait for it.
    server.unload(name, missing_ok=True)
    if root is not None:
        server.load(name, root)


def root_of(server: VllmServer, name: str) -> str | None:
    """The folder from which `name` is served; None: nothing has that name."""
    model = server.models().get(name)
    return None if model is None else model.root
