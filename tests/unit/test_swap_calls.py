"""Calls of a swap end in their time, and its rollback waits for what is under way."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from e2urec.api.serving import http_calls
from e2urec.api.serving.http_calls import HttpCalls, NoAnswerError
from e2urec.api.serving.rollback import settle
from e2urec.api.serving.vllm_server import ServedModel, VllmServer
from e2urec.core.errors import ServerError

OURS = "/new"


class Dripping(BaseHTTPRequestHandler):
    """Sends a byte now and then, for longer than anybody waits."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            try:
                self.wfile.write(b" " if self.path == "/drip" else b" " * 10_000)
                self.wfile.flush()
            except OSError:
                return
            if self.path == "/drip":
                time.sleep(0.05)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as http:
        http.daemon_threads = True
        http.block_on_close = False
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_server_that_drips_does_not_outlast_the_timeout(url) -> None:
    start = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"within 0\.3 seconds"):
        HttpCalls(url, None, 0.3).ask("GET", "/drip")
    assert time.monotonic() - start < 2


def test_answer_without_end_is_refused(url, monkeypatch) -> None:
    monkeypatch.setattr(http_calls, "LARGEST_ANSWER", 50_000)
    with pytest.raises(ServerError, match="is larger than"):
        HttpCalls(url, None, 10).ask("GET", "/flood")


class Slow(VllmServer):
    """A server whose load gets no answer in time, and is done a moment later."""

    def __init__(self) -> None:
        super().__init__("http://host", timeout=2)
        self.calls: list[str] = []
        self.lists_until_done = 3

    def models(self) -> dict[str, ServedModel]:
        if "load" in self.calls:
            self.lists_until_done -= 1
        if self.lists_until_done > 0:
            return {}
        return {"movies": ServedModel("movies", "/old", is_adapter=True)}

    def load(self, name: str, path: str) -> None:
        self.calls.append("load")
        raise NoAnswerError("too late")

    def unload(self, name: str, *, missing_ok: bool = False) -> None:
        self.calls.append("unload")


def test_load_under_way_is_waited_for_and_not_unloaded(monkeypatch) -> None:
    monkeypatch.setattr("e2urec.api.serving.rollback.POLL_SECONDS", 0.01)
    server = Slow()
    settle(server, "movies", "/old", OURS)
    assert server.calls == ["unload", "load"]


class Foreign(VllmServer):
    """A server on which somebody else took the name."""

    def models(self) -> dict[str, ServedModel]:
        return {"movies": ServedModel("movies", "/theirs", is_adapter=True)}

    def unload(self, name: str, *, missing_ok: bool = False) -> None:
        raise AssertionError("it is not ours to unload")


@pytest.mark.parametrize("root", [None, "/old"])
def test_name_that_somebody_else_took_is_not_unloaded(root) -> None:
    with pytest.raises(ServerError, match="somebody else put there"):
        settle(Foreign("http://host"), "movies", root, OURS)


class Answering(VllmServer):
    """A server that gives each token a log-probability."""

    values = torch.tensor([0.5, -1.0, 2.0, 0.1]).log_softmax(0)

    def _values_of_token(self, name, prompts, token) -> Iterator[float]:
        yield from [float(self.values[token])] * len(prompts)


def test_probability_of_an_answer_is_the_sum_of_those_of_its_tokens() -> None:
    log_probabilities = Answering("http://host").log_probabilities("m", [[1], [2]], ((0, 2), (3,)))
    p = Answering.values.exp().numpy()
    expected = [p[0] + p[2], p[3]]
    assert np.exp(log_probabilities) == pytest.approx(np.array([expected, expected]), abs=1e-6)
