"""A server that speaks vLLM's interface, and answers by Transformers and PEFT alone.

It behaves as vLLM's source does: a name is loaded once, an engine that is full drops the adapter
that was used longest ago and then cannot unload it, and the prefix cache knows an adapter by its
name. What it is told to get wrong, it gets wrong once.
"""

import copy
import functools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
MODELS = "/v1/models"
COMPLETIONS = "/v1/completions"
RESET = "/reset_prefix_cache"
BASE = "base-model"
ADDRESS = ("127.0.0.1", 0)
HANGS_SECONDS = 3

How = Literal["refuse", "hang", "drop", "drop after", "call"]


@dataclass
class Fault:
    """What goes wrong at a request.

    Attributes:
        path: of the request.
        number: which request to that path, counted from 1; all from there on if `lasts`.
        how: an HTTP 500; an answer that comes too late; a connection that is closed before or
            after the request was honoured; or `action` is called first.
        action: called with nothing.
        lasts: whether all later ones fail too.
    """

    path: str
    number: int
    how: How
    action: Callable[[], object] = lambda: None
    lasts: bool = False


@dataclass
class StandIn:
    """The server and its state.

    Attributes:
        base: folder of the base model.
        lm: that model.
        version: by which its prefix cache goes by an adapter's name, or by its folder as well.
        updating: whether it was started with VLLM_ALLOW_RUNTIME_LORA_UPDATING.
        dev_mode: whether it was started with VLLM_SERVER_DEV_MODE.
        caching: whether it keeps states of prompts.
        reset_answer: what a reset says; None: nothing, as before version 0.26.
        api_key: that it asks for; None: none.
        max_tokens: longest prompt.
        engine_size: adapters that its engine holds at a time.
        adapters: folder of each adapter by its name.
        stand_ins: folders whose weights are read from another folder instead.
        requests: path and body of each request.
    """

    base: Path
    lm: Any
    version: str = "0.31.0"
    updating: bool = True
    dev_mode: bool = True
    caching: bool = True
    reset_answer: bool | None = True
    api_key: str | None = None
    max_tokens: int = 512
    engine_size: int = 8
    adapters: dict[str, str] = field(default_factory=dict)
    stand_ins: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, Any]] = field(default_factory=list)
    engine: list[str] = field(default_factory=list)
    cached: dict[tuple[str, str, tuple[int, ...]], list[float]] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)

    def __enter__(self) -> "StandIn":
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self.http = ThreadingHTTPServer(ADDRESS, handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.requests)

    # --- what it does

    def load(self, body: Any) -> tuple[int, Any]:
        name, root = body["lora_name"], body["lora_path"]
        if name in self.adapters:
            return self.refusal(400, f"The lora adapter '{name}' has already been loaded.")
        if not Path(root, "adapter_config.json").is_file():
            return self.refusal(404, f"No adapter found for {root}")
        self.to_engine(name, root)
        self.adapters[name] = root
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body: Any) -> tuple[int, Any]:
        name = body["lora_name"]
        if name not in self.adapters:
            return self.refusal(404, f"The lora adapter '{name}' cannot be found.")
        if name not in self.engine:
            return self.refusal(500, f"Failed to remove lora adapter '{name}' from the engine.")
        self.engine.remove(name)
        del self.adapters[name]
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    def complete(self, body: Any) -> tuple[int, Any]:
        name = body["model"]
        if name in self.adapters and name not in self.engine:
            self.to_engine(name, self.adapters[name])
        if name not in self.adapters and name != BASE:
            return self.refusal(404, f"The model `{name}` does not exist.")
        prompts = body["prompt"]
        if isinstance(prompts[0], int):
            prompts = [prompts]
        choices = []
        for index, prompt in enumerate(prompts):
            values = self.next_values(name, prompt, body.get("cache_salt"))
            # What is not allowed is not generated, but keeps its share of the probability.
            allowed = body.get("allowed_token_ids") or range(len(values))
            token = max(allowed, key=values.__getitem__)
            logprobs = {"tokens": [""], "token_logprobs": [values[token]]}
            choices.append({"index": index, "text": "", "logprobs": logprobs})
        # In no order, as a client must not rely on one.
        return 200, {"object": "text_completion", "choices": choices[::-1]}

    def next_values(self, name: str, prompt: list[int], salt: str | None) -> list[float]:
        """Log-probabilities of all tokens after a prompt; from the cache where it is there."""
        folder = "" if self.version < "0.32" else self.adapters.get(name, "")
        key = (name, folder, tuple(prompt))
        if self.caching and salt is None and key in self.cached:
            return self.cached[key]
        values = next_values(self.models.get(name, self.lm), prompt)
        if salt is None:
            self.cached[key] = values
        return values

    def to_engine(self, name: str, root: str) -> None:
        self.models[name] = read_adapter(self.lm, self.stand_ins.get(root, root))
        self.engine.append(name)
        del self.engine[: -self.engine_size]

    def reset(self, body: Any) -> tuple[int, Any]:
        if self.reset_answer is not False:
            self.cached.clear()
        return 200, None if self.reset_answer is None else {"success": self.reset_answer}

    def list_models(self) -> tuple[int, Any]:
        cards = [{"id": BASE, "root": str(self.base), "parent": None}]
        cards[0]["max_model_len"] = self.max_tokens
        for name, root in self.adapters.items():
            cards.append({"id": name, "root": root, "parent": BASE})
        return 200, {"object": "list", "data": cards}

    def metrics(self) -> tuple[int, Any]:
        return (
            200,
            f'vllm:cache_config_info{{block_size="16",enable_prefix_caching="{self.caching}"}} 1',
        )

    @staticmethod
    def refusal(status: int, message: str) -> tuple[int, Any]:
        return status, {"error": {"message": message, "code": status}}

    def answer(self, verb: str, path: str, body: Any, key: str | None) -> tuple[int, Any]:
        if path.startswith("/v1") and self.api_key and key != f"Bearer {self.api_key}":
            return 401, {"error": "Unauthorized"}
        posts = {COMPLETIONS: self.complete}
        if self.updating:
            posts |= {LOAD: self.load, UNLOAD: self.unload}
        if self.dev_mode:
            posts[RESET] = self.reset
        gets = {
            MODELS: self.list_models,
            "/metrics": self.metrics,
            "/version": lambda: (200, {"version": self.version}),
        }
        if verb == "GET":
            if path in gets:
                return gets[path]()
            return self.refusal(405 if path in posts else 404, "no such route")
        if path not in posts:
            return self.refusal(404, "no such route")
        return posts[path](body)

    def fault(self, path: str) -> Fault | None:
        number = self.count(path)
        for fault in self.faults:
            is_due = number == fault.number or (fault.lasts and number > fault.number)
            if fault.path == path and is_due:
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"
    # An answer's head and body are two packets; the second would wait 40 ms for word of the first.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.serve("GET", None)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.serve("POST", json.loads(data) if data else None)

    def serve(self, verb: str, body: Any) -> None:
        server = self.stand_in
        path = self.path.partition("?")[0]
        key = self.headers.get("Authorization")
        fault = None
        with server.lock:
            # Questions whether a route is there do not count.
            if verb == "POST" or path == MODELS:
                server.requests.append((path, body))
                fault = server.fault(path)
        how = None if fault is None else fault.how
        if how == "drop":
            self.close_connection = True
            return
        # As vLLM does, it lets a second call on a name wait until the first is done.
        with server.lock:
            if fault is not None:
                fault.action()
            if how == "refuse":
                status, value = server.refusal(500, "told to refuse")
            else:
                status, value = server.answer(verb, path, body, key)
        if how == "drop after":
            self.close_connection = True
            return
        if how == "hang":
            time.sleep(HANGS_SECONDS)
        self.write(status, value)

    def write(self, status: int, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        data = b"" if value is None else text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        pass


# Reading one takes longer than all else that the server does.
@functools.cache
def read_adapter(lm: Any, folder: str) -> Any:
    """The adapter of a folder, on a base of its own."""
    return PeftModel.from_pretrained(copy.deepcopy(lm), folder).eval()


@torch.no_grad()
def next_values(lm: Any, prompt: list[int]) -> list[float]:
    """Log-probabilities of all tokens after a prompt."""
    logits = lm(input_ids=torch.tensor([prompt])).logits[0, -1]
    values: list[float] = logits.log_softmax(dim=0).tolist()
    return values
