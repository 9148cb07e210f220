"""A vLLM server, as far as adapters are exchanged on it.

Its interface is read from the source of vLLM 0.32.0: `entrypoints/openai/models/serving.py` loads,
unloads and lists, `entrypoints/openai/completion/protocol.py` says what a question may ask for,
`v1/sample/sampler.py` what is answered, and `entrypoints/serve/dev/cache/api_router.py` resets the
prefix cache.
"""

import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import urllib3

from ..core.arrays import Floats
from ..core.errors import ConfigError, ServerError

KEY_VARIABLE = "VLLM_API_KEY"
"""Environment variable of vLLM itself, for the server and for whoever asks it."""
LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
MODELS = "/v1/models"
COMPLETIONS = "/v1/completions"
RESET = "/reset_prefix_cache"
# Without the first, running requests keep their blocks and the server resets nothing. Without the
# second, states that were moved out to the computer's memory stay. Older servers ignore both.
RESET_ALL = f"{RESET}?reset_running_requests=true&reset_external=true"
TIMEOUT = 120.0
"""Seconds that one answer may take: an adapter of gigabytes is read from a disk meanwhile."""
CONNECT_SECONDS = 10.0
PROMPTS_AT_ONCE = 16
LONGEST_REASON = 300
"""Letters of the server's own words that are passed on."""
MISSING = 404
UNAUTHORISED = (401, 403)
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


def read_api_key(file: Path | None) -> str | None:
    """The key for the server: of `file`, else of the environment; None: there is none.

    Raises:
        ConfigError: there is no key in the file, or none that could be sent; it is not repeated.
    """
    place = f"environment variable {KEY_VARIABLE}"
    key = os.environ.get(KEY_VARIABLE, "")
    if file is not None:
        place = f"--api-key-file '{file}'"
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{place}: cannot be read; name another file") from error
    elif not key:
        return None
    # Anything else could not stand in a header of HTTP.
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(f"{place}: holds no key of plain letters in one line; name another")
    return key


class VllmServer:
    """A vLLM server at a URL."""

    def __init__(self, url: str, api_key: str | None = None, timeout: float = TIMEOUT) -> None:
        """Note where the server is; nothing is asked yet.

        Args:
            url: such as `http://localhost:8000`.
            api_key: what the server was started with as `--api-key`.
            timeout: seconds that an answer may take.

        Raises:
            ConfigError: `url` is none, or holds a password.
        """
        self.url = _plain_url(url)
        self.timeout = timeout
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._pool = urllib3.PoolManager(retries=False)

    def models(self) -> dict[str, ServedModel]:
        """The server's list of models, by name."""
        values = self._values(self._ask("GET", MODELS), MODELS)
        try:
            models = [_model_of(card) for card in values["data"]]
        except (KeyError, TypeError) as error:
            raise self._other_form(MODELS) from error
        return {model.name: model for model in models}

    def version(self) -> str | None:
        """The version of vLLM; None: the server does not say."""
        response = self._ask("GET", "/version")
        if not _is_done(response):
            return None
        version = self._values(response, "/version").get("version")
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
        response = self._ask("GET", "/metrics")
        return not (_is_done(response) and CACHE_IS_OFF.search(_text(response)))

    def load(self, name: str, path: str) -> None:
        """Load the adapter in folder `path`, as the server sees it, under `name`."""
        response = self._ask("POST", LOAD, {"lora_name": name, "lora_path": path})
        if not _is_done(response):
            raise ServerError(
                f"server '{self.url}': does not load '{path}' as '{name}' "
                f"({_reason(response)}); see that it may read that folder and was started with a "
                "--max-lora-rank that suffices, or say with --server-path where it sees it"
            )

    def unload(self, name: str, *, missing_ok: bool = False) -> None:
        """Unload adapter `name`.

        Args:
            name: of the adapter.
            missing_ok: whether there need not be one.
        """
        response = self._ask("POST", UNLOAD, {"lora_name": name})
        if not _is_done(response) and NOT_IN_ENGINE in _text(response):
            # By default an engine holds one adapter and drops the one before, which is read from
            # the disk again when somebody asks for it. Until then some versions do not unload it.
            self._ask("POST", COMPLETIONS, {"model": name, "prompt": [0], "max_tokens": 1})
            response = self._ask("POST", UNLOAD, {"lora_name": name})
        if _is_done(response) or (missing_ok and response.status == MISSING):
            return
        raise ServerError(
            f"server '{self.url}': does not unload '{name}' ({_reason(response)}); see its log"
        )

    def reset_prefix_cache(self) -> bool | None:
        """Have all states of prompts forgotten; None: the server does not say whether they were.

        Versions before 0.26 answer without a word, whether they did it or not.
        """
        response = self._ask("POST", RESET_ALL)
        if not _is_done(response):
            raise ServerError(
                f"server '{self.url}': does not reset its prefix cache ({_reason(response)}); see "
                "its log"
            )
        if not response.data:
            return None
        success = self._values(response, RESET).get("success")
        return None if success is None else bool(success)

    def log_probabilities(
        self, name: str, prompts: Sequence[Sequence[int]], answers: Sequence[int]
    ) -> Floats:
        """Log-probabilities of k answers after each prompt, (n, k), in nats, by model `name`.

        The server may generate one token, and only the answer in question. It tells the
        log-probability that this token had among all, whatever its place, where those of others
        are told of the 20 best at most (`--max-logprobs`). `prompt_logprobs` would tell it, too,
        but ends the engine of some versions that serve adapters (vLLM's issue 29955).

        Args:
            name: of the model.
            prompts: n rows of token ids.
            answers: their tokens.
        """
        log_probabilities = np.zeros((len(prompts), len(answers)))
        for column, answer in enumerate(answers):
            for row, value in enumerate(self._values_of_answer(name, prompts, answer)):
                log_probabilities[row, column] = value
        return log_probabilities

    def _values_of_answer(
        self, name: str, prompts: Sequence[Sequence[int]], answer: int
    ) -> Iterator[float]:
        """The log-probability of one answer after each prompt."""
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            part = prompts[start : start + PROMPTS_AT_ONCE]
            question = {
                "model": name,
                "prompt": part,
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": 1,
                "allowed_token_ids": [answer],
                # So that nothing is answered from states of others, and nobody from these.
                "cache_salt": secrets.token_hex(16),
            }
            values = self._values(self._ask("POST", COMPLETIONS, question), COMPLETIONS)
            try:
                choices = {choice["index"]: choice for choice in values["choices"]}
                for place in range(len(part)):
                    yield float(choices[place]["logprobs"]["token_logprobs"][0])
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise self._other_form(COMPLETIONS) from error

    def _has_route(self, path: str) -> bool:
        # A route that takes POST answers GET with 405 and does nothing; one that is not there, 404.
        return self._ask("GET", path).status != MISSING

    def _ask(self, verb: str, path: str, body: Any = None) -> urllib3.BaseHTTPResponse:
        limits = urllib3.Timeout(connect=CONNECT_SECONDS, read=self.timeout)
        try:
            return self._pool.request(
                verb,
                f"{self.url}{path}",
                json=body,
                headers=self._headers,
                timeout=limits,
                # A redirected POST would become a GET, and take the key elsewhere.
                redirect=False,
            )
        except urllib3.exceptions.ReadTimeoutError as error:
            raise ServerError(
                f"server '{self.url}': gave no answer to {path} within {self.timeout:g} seconds; "
                "see its log, or raise --timeout"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(
                f"server '{self.url}': the connection failed at {path} ({type(error).__name__}); "
                "see that it runs, and that --vllm names it"
            ) from error

    def _values(self, response: urllib3.BaseHTTPResponse, path: str) -> dict[str, Any]:
        """The JSON object of an answer."""
        if response.status in UNAUTHORISED:
            raise ServerError(
                f"server '{self.url}': refuses the API key (HTTP {response.status}); set "
                f"{KEY_VARIABLE}, or name its file with --api-key-file"
            )
        if not _is_done(response):
            # Without its words, since those of a refused question may repeat the prompt.
            raise ServerError(
                f"server '{self.url}': answers {path} with HTTP {response.status}; see its log"
            )
        try:
            values = response.json()
        except ValueError as error:
            raise self._other_form(path) from error
        if not isinstance(values, dict):
            raise self._other_form(path)
        return values

    def _other_form(self, path: str) -> ServerError:
        return ServerError(
            f"server '{self.url}': answers {path} in another form than vLLM does; name a vLLM "
            "server with --vllm"
        )


def _plain_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query
    except ValueError:
        is_plain = False
    if "@" in url:
        raise ConfigError("--vllm: holds a password; leave it out, and use --api-key-file")
    if not is_plain:
        raise ConfigError(f"--vllm '{url}': is no URL such as http://localhost:8000")
    # Clients are used to write /v1 behind it.
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _model_of(card: dict[str, Any]) -> ServedModel:
    max_tokens = card.get("max_model_len")
    return ServedModel(
        name=str(card["id"]),
        root=str(card.get("root") or card["id"]),
        is_adapter=card.get("parent") is not None,
        max_tokens=max_tokens if isinstance(max_tokens, int) else None,
    )


def _is_done(response: urllib3.BaseHTTPResponse) -> bool:
    return 200 <= response.status < 300


def _text(response: urllib3.BaseHTTPResponse) -> str:
    return response.data.decode(errors="replace")


def _reason(response: urllib3.BaseHTTPResponse) -> str:
    """What the server itself says of a refusal, in short."""
    try:
        values = json.loads(response.data)
        # Newer versions put it one level deeper.
        error = values.get("error", values)
        words = str(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        words = ""
    return f"HTTP {response.status} {words[:LONGEST_REASON]}".strip()
