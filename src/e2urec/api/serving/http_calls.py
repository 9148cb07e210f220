"""Calls to a server by HTTP, none of which takes longer or brings more than it may."""

import json
import os
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from ...core.errors import ConfigError, ServerError

KEY_VARIABLE = "VLLM_API_KEY"
"""Environment variable of vLLM itself, for the server and for whoever asks it."""
CONNECT_SECONDS = 10.0
LONGEST_TIMEOUT = 86_400.0
"""Seconds; the operating system takes no number of any size."""
# The metrics of a large server are some megabytes, all other answers less.
LARGEST_ANSWER = 64 * 2**20
"""Bytes."""
PIECE = 2**16
LONGEST_REASON = 300
"""Letters of the server's own words that are passed on."""
UNAUTHORISED = (401, 403)


class NoAnswerError(ServerError):
    """A call got no whole answer in its time: it may have been honoured, or will be yet."""


@dataclass(frozen=True)
class Answer:
    """What a server answered.

    Attributes:
        status: of HTTP.
        data: its bytes.
    """

    status: int
    data: bytes

    @property
    def is_done(self) -> bool:
        """Whether the server did what it was asked to."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """Its bytes as text."""
        return self.data.decode(errors="replace")


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


class HttpCalls:
    """Calls to one server."""

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        """Note where the server is; nothing is asked yet.

        Args:
            url: such as `http://localhost:8000`.
            api_key: what the server wants to see; None: nothing.
            timeout: seconds that a call may take from its beginning to the end of its answer.

        Raises:
            ConfigError: `url` is none, or holds more than an address.
        """
        self.url = _plain_url(url)
        self.timeout = timeout
        self._api_key = api_key
        self._pool = urllib3.PoolManager(retries=False)

    def ask(self, verb: str, path: str, body: Any = None) -> Answer:
        """Make a call.

        Raises:
            NoAnswerError: its time is over.
            ServerError: the connection failed, or the answer is too large.
        """
        answers: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()
        deadline = time.monotonic() + self.timeout

        def work() -> None:
            try:
                answers.put(self._call(verb, path, body, deadline))
            except Exception as error:
                answers.put(error)

        # The timeout of a socket is one of each read: a server that sends a byte now and then
        # never meets it. So the call has a thread of its own, which is not waited for any longer.
        threading.Thread(target=work, daemon=True).start()
        try:
            answer = answers.get(timeout=self.timeout)
        except queue.Empty:
            raise self._no_answer(path) from None
        if isinstance(answer, (urllib3.exceptions.ReadTimeoutError, TimeoutError)):
            raise self._no_answer(path) from answer
        # A port that cannot be connected to, or a host's name that cannot be written, is none.
        if isinstance(answer, (urllib3.exceptions.HTTPError, OSError, UnicodeError)):
            raise ServerError(
                f"server '{self.url}': the connection failed at {path} ({type(answer).__name__}); "
                "see that it runs, and that --vllm names it"
            ) from answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def values(self, answer: Answer, path: str) -> dict[str, Any]:
        """The JSON object of an answer.

        Raises:
            ServerError: the key is refused, or the answer is an error or no such object.
        """
        if answer.status in UNAUTHORISED:
            raise ServerError(
                f"server '{self.url}': refuses the API key (HTTP {answer.status}); set "
                f"{KEY_VARIABLE}, or name its file with --api-key-file"
            )
        if not answer.is_done:
            # Without its words, since those of a refused question may repeat the prompt.
            raise ServerError(
                f"server '{self.url}': answers {path} with HTTP {answer.status}; see its log"
            )
        try:
            values = json.loads(answer.data)
        except (ValueError, RecursionError) as error:
            raise self.other_form(path) from error
        if not isinstance(values, dict):
            raise self.other_form(path)
        return values

    def reason(self, answer: Answer) -> str:
        """What the server itself says of a refusal, in short and without the key."""
        try:
            values = json.loads(answer.data)
            # Newer versions put it one level deeper.
            error = values.get("error", values)
            words = str(error["message"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            words = ""
        # Before it is cut, or half of the key could remain.
        if self._api_key:
            words = words.replace(self._api_key, "(the API key)")
        return f"HTTP {answer.status} {words[:LONGEST_REASON]}".strip()

    def other_form(self, path: str) -> ServerError:
        """The error of an answer that is none of vLLM's."""
        return ServerError(
            f"server '{self.url}': answers {path} in another form than vLLM does; name a vLLM "
            "server with --vllm"
        )

    def _call(self, verb: str, path: str, body: Any, deadline: float) -> Answer:
        connect = min(CONNECT_SECONDS, self.timeout)
        headers = {} if self._api_key is None else {"Authorization": f"Bearer {self._api_key}"}
        response = self._pool.request(
            verb,
            f"{self.url}{path}",
            json=body,
            headers=headers,
            timeout=urllib3.Timeout(connect=connect, read=self.timeout),
            # A redirected POST would become a GET, and take the key elsewhere.
            redirect=False,
            preload_content=False,
        )
        try:
            data = self._read(response, path, deadline)
        except BaseException:
            # What is left of the answer would be taken for the next one.
            response.close()
            raise
        response.release_conn()
        return Answer(response.status, data)

    def _read(self, response: urllib3.BaseHTTPResponse, path: str, deadline: float) -> bytes:
        data = bytearray()
        while piece := response.read1(PIECE):
            data += piece
            if len(data) > LARGEST_ANSWER:
                raise ServerError(
                    f"server '{self.url}': its answer to {path} is larger than "
                    f"{LARGEST_ANSWER >> 20} MiB; name a vLLM server with --vllm"
                )
            # Nobody waits any more.
            if time.monotonic() > deadline:
                raise TimeoutError
        return bytes(data)

    def _no_answer(self, path: str) -> NoAnswerError:
        return NoAnswerError(
            f"server '{self.url}': gave no answer to {path} within {self.timeout:g} seconds; see "
            "its log, or raise --timeout"
        )


def _plain_url(url: str) -> str:
    # None of it is repeated: a password or a key may stand anywhere in it.
    if "@" in url:
        raise ConfigError("--vllm: holds a password; leave it out, and use --api-key-file")
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        # Reading the port is what checks it.
        is_address = is_address and parts.port != 0
    except ValueError:
        is_address = False
    is_plain = url.isprintable() and not any(sign in url for sign in "?# ")
    if not is_address or not is_plain:
        raise ConfigError(
            "--vllm: is no URL such as http://localhost:8000, which has no blanks and neither ? "
            "nor #"
        )
    # Clients are used to write /v1 behind it.
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
