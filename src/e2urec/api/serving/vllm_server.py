"""A vLLM server, as far as adapters are exchanged on it.

Its interface is read from the source of vLLM 0.32.0: `entrypoints/openai/models/serving.py` loads,
unloads and lists, `entrypoints/openai/completion/protocol.py` says what a question may ask for,
`v1/sample/sampler.py` what is answered, and `entrypoints/serve/dev/cache/api_router.py` resets the
prefix cache.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.arrays import Floats
from ...core.errors import ServerError
from .http_calls import HttpCalls

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
MODELS = "/v1/models"
COMPLETIONS = "/v1/completions"
RESET = "/reset_prefix_cache"
# Without the first, running requests keep their blocks and the server resets nothing. Without the
# second, states that were moved out to the computer's memory stay. Older servers ignore both.
RESET_ALL = f"{RESET}?reset_running_requests=true&reset_external=true"
TIMEOUT = 120.0
"""Seconds that one call may take: an adapter of gigabytes is read from a disk meanwhile."""
PROMPTS_AT_ONCE = 16
MISSING = 404
REFUSED = 400
ALREADY_LOADED = "already been loaded"
"""What vLLM says of a name that another adapter has."""
NOT_IN_ENGINE = "Failed to remove"
"""What vLLM says of an adapter that is on its list, and not in the memory of its engine."""
FOLDER_IN_CACHE = (0, 32)
"""From this version on, the prefix cache knows an adapter by its folder too, not by name alone."""
CACHE_IS_OFF = re.compile(r'^vllm:cache_config_info\{.*enable_prefix_caching="False"', re.M)


@dataclass(frozen=True)
class ServedModel:
    """An entry of the server's list of models.

    Attributes:
        name: by which clients ask for it.
        root: folder or name that it was loaded from, as the server sees it.
        is_adapter: whether it is an adapter, and not the server's base model.
        max_tokens: longest prompt with its answer; None: the list does not say.
    """

    name: str
    root: str
    is_adapter: bool
    max_tokens: int | None = None


class AlreadyLoadedError(ServerError):
    """An adapter of that name is there already: somebody else has loaded it."""


class VllmServer(HttpCalls):
    """A vLLM server at a URL."""

    def __init__(self, url: str, api_key: str | None = None, timeout: float = TIMEOUT) -> None:
        """Note where the server is; see `HttpCalls`."""
        super().__init__(url, api_key, timeout)

    def models(self) -> dict[str, ServedModel]:
        """The server's list of models, by name."""
        values = self.values(self.ask("GET", MODELS), MODELS)
        try:
            models = list(map(_model_of, values["data"]))
        except (KeyError, TypeError) as error:
            raise self.other_form(MODELS) from error
        return {model.name: model for model in models}

    def version(self) -> str | None:
        """The version of vLLM; None: the server does not say."""
        response = self.ask("GET", "/version")
        if not response.is_done:
            return None
        version = self.values(response, "/version").get("version")
        return None if version is None else str(version)

    def keeps_folders_apart(self) -> bool:
        """Whether the prefix cache tells adapters of one name by their folders."""
        numbers = re.match(r"(\d+)\.(\d+)", self.version() or "")
        if numbers is None:
            return False
        major, minor = map(int, numbers.groups())
        return (major, minor) >= FOLDER_IN_CACHE

    def takes_adapters(self) -> bool:
        """Whether adapters can be loaded while the server runs."""
        return self._has_route(LOAD)

    def can_reset(self) -> bool:
        """Whether the server offers to reset its prefix cache."""
        return self._has_route(RESET)

    def caches_prefixes(self) -> bool:
        """Whether it may keep the states of a prompt; False only where its metrics deny it."""
        response = self.ask("GET", "/metrics")
        return not (response.is_done and CACHE_IS_OFF.search(response.text))

    def load(self, name: str, path: str) -> None:
        """Load the adapter in folder `path`, as the server sees it, under `name`."""
        response = self.ask("POST", LOAD, {"lora_name": name, "lora_path": path})
        if response.status == REFUSED and ALREADY_LOADED in response.text:
            raise AlreadyLoadedError(
                f"server '{self.url}': '{name}' was loaded by somebody else meanwhile, and stays "
                "as it is; see that nobody else changes its adapters, and try again"
            )
        if not response.is_done:
            raise ServerError(
                f"server '{self.url}': does not load '{path}' as '{name}' "
                f"({self.reason(response)}); see that it may read that folder and was started with "
                "a --max-lora-rank that suffices, or say with --server-path where it sees it"
            )

    def unload(self, name: str, *, missing_ok: bool = False) -> None:
        """Unload adapter `name`.

        Args:
            name: of the adapter.
            missing_ok: whether there need not be one.
        """
        response = self.ask("POST", UNLOAD, {"lora_name": name})
        if not response.is_done and NOT_IN_ENGINE in response.text:
            # By default an engine holds one adapter and drops the one before, which is read from
            # the disk again when somebody asks for it. Until then some versions do not unload it.
            self.ask("POST", COMPLETIONS, {"model": name, "prompt": [0], "max_tokens": 1})
            response = self.ask("POST", UNLOAD, {"lora_name": name})
        if response.is_done or (missing_ok and response.status == MISSING):
            return
        raise ServerError(
            f"server '{self.url}': does not unload '{name}' ({self.reason(response)}); see its log"
        )

    def reset_prefix_cache(self) -> bool | None:
        """Have all states of prompts forgotten; None: the server does not say whether they were.

        Versions before 0.26 answer without a word, whether they did it or not.
        """
        response = self.ask("POST", RESET_ALL)
        if not response.is_done:
            raise ServerError(
                f"server '{self.url}': does not reset its prefix cache ({self.reason(response)}); "
                "see its log"
            )
        if not response.data:
            return None
        success = self.values(response, RESET).get("success")
        return None if success is None else bool(success)

    def log_probabilities(
        self, name: str, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
    ) -> Floats:
        """Log-probabilities of the answers after each prompt, (n, 2), in nats, by model `name`.

        The server may generate one token, and only the one in question. It tells the
        log-probability that this token had among all, whatever its place, where those of others
        are told of the 20 best at most (`--max-logprobs`). `prompt_logprobs` would tell it, too,
        but ends the engine of some versions that serve adapters (vLLM's issue 29955). Of an answer
        that is several tokens, each is asked for: its probability is the sum of theirs.

        Args:
            name: of the model.
            prompts: n rows of token ids.
            answers: tokens of liked, and tokens of not liked.
        """
        log_probabilities = np.full((len(prompts), len(answers)), -np.inf)
        for column, tokens in enumerate(answers):
            for token in tokens:
                values = np.fromiter(self._values_of_token(name, prompts, token), dtype=float)
                log_probabilities[:, column] = np.logaddexp(log_probabilities[:, column], values)
        return log_probabilities

    def _values_of_token(
        self, name: str, prompts: Sequence[Sequence[int]], token: int
    ) -> Iterator[float]:
        """The log-probability of one token after each prompt."""
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            part = prompts[start : start + PROMPTS_AT_ONCE]
            question = {
                "model": name,
                "prompt": part,
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": 1,
                "allowed_token_ids": [token],
                # So that nothing is answered from states of others, and nobody from these.
                "cache_salt": secrets.token_hex(16),
            }
            values = self.values(self.ask("POST", COMPLETIONS, question), COMPLETIONS)
            try:
                choices = {choice["index"]: choice for choice in values["choices"]}
                for place in range(len(part)):
                    yield float(choices[place]["logprobs"]["token_logprobs"][0])
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise self.other_form(COMPLETIONS) from error

    def _has_route(self, path: str) -> bool:
        # A route that takes POST answers GET with 405 and does nothing; one that is not there, 404.
        return self.ask("GET", path).status != MISSING


def _model_of(card: Any) -> ServedModel:
    """An entry of the list; raises KeyError or TypeError where it is none of vLLM's."""
    if not isinstance(card, dict):
        raise TypeError
    name = card["id"]
    root = card.get("root") or name
    if not isinstance(name, str) or not isinstance(root, str):
        raise TypeError
    max_tokens = card.get("max_model_len")
    return ServedModel(
        name=name,
        root=root,
        is_adapter=card.get("parent") is not None,
        max_tokens=max_tokens if isinstance(max_tokens, int) else None,
    )
