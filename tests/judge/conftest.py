"""A judge's server made of the standard library: it keeps its own bill, and has every fault that servers have."""

from __future__ import annotations

import hashlib
import json
import math
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Faults = Callable[[str, int], str | None]  # (key, attempt from 0) → what goes wrong


@pytest.fixture(scope="session")
def vectors(shared_data: Path) -> Path:
    """The folder of real judgments with the figures that must come out of them."""
    folder = shared_data / "judging"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


def longer_wins(first: str, second: str) -> str:
    """A judge with a content rule; it has no opinion on answers that contain the word mumble."""
    if "mumble" in first + second:
        return "Hard to say, both have their merits."
    if len(first) == len(second):
        return "It's a tie."
    return "Response 1" if len(first) > len(second) else "Response 2"


def texts_of(content: str) -> list[str]:
    """Conversation and answers as a judge sees them: between lines that begin with the mark; nothing in a probe."""
    mark = re.search(r"^=== [0-9a-f]{16}", content, re.MULTILINE)
    if mark is None:
        return []
    headed = re.split(rf"^{mark[0]} [A-Z].*\n", content, flags=re.MULTILINE)[1:-1]
    wrapped = re.findall(rf"{mark[0]}\n(.*?)\n{mark[0]}(?=\W)", content + "\n", flags=re.DOTALL)
    return [text.strip() for text in headed or wrapped]


def logprobs_of(weights: dict[str, float]) -> dict[str, Any]:
    """The first token's alternatives as OpenAI writes them."""
    top = [{"token": token, "logprob": math.log(p)} for token, p in weights.items()]
    return {"content": [{**top[0], "top_logprobs": top}]}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, stub: Stub, handler: type[Handler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.stub = stub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Killed clients are part of the play."""


class Stub:
    """The server. ``bill`` counts completions by request: whatever is counted here would have been paid for. Its log
    has the client's ids of the requests that it ``received`` and ``charged`` for."""

    def __init__(self, handler: type[Handler] | None = None) -> None:
        self.bill: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.charged: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.judge: Callable[[str, str], str | None] = longer_wins
        self.weigh: Callable[[str, str], dict[str, float]] | None = None  # label weights, where they are asked for
        self.structured: Callable[..., Any] | None = None  # JSON, where a schema is given
        self.tokens_a_character: float | None = None
        self.reply_tokens = 3
        self.finish = "stop"
        self.ready = "ready"
        self.faults: Faults = lambda key, attempt: None
        self.refuses: Callable[[dict[str, Any]], str | None] = lambda body: None
        self.models: list[dict[str, Any]] | None = [{"id": "stub", "object": "model"}]
        self.paths: tuple[str, ...] = ("/",)
        self.pages = False  # of HTML, whatever is asked
        self.headers: list[dict[str, str]] = []
        self.latency = 0.0
        self.hang = 1.5
        self.at_once = 0
        self.most_at_once = 0
        self.lock = threading.Lock()
        self._server = _Server(self, handler or Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def games(self) -> Counter[str]:
        """The bill without the preflight's probe."""
        with self.lock:
            return Counter({key: n for key, n in self.bill.items() if not key.startswith("probe")})

    def completion(self, body: dict[str, Any], texts: list[str]) -> dict[str, Any]:
        """The whole chat completion; it ignores what it does not know, as servers do."""
        text: str | None = self.judge(*texts[-2:]) if len(texts) > 2 else self.ready
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish}
        if self.weigh is not None and body.get("logprobs"):
            weights = self.weigh(*texts[-2:]) if texts else {"ready": 1.0}
            text, choice["logprobs"] = max(weights, key=lambda token: weights[token]), logprobs_of(weights)
            choice["finish_reason"] = "length"  # of one token
        if self.structured and "response_format" in body:
            text = json.dumps(self.structured(*texts) if texts else {"ready": "yes"})
        choice["message"] = {"role": "assistant", "content": text}
        characters = sum(len(message["content"]) for message in body["messages"])
        ratio = self.tokens_a_character
        usage = {
            "prompt_tokens": 100 if ratio is None else round(ratio * characters),
            "completion_tokens": self.reply_tokens,
        }
        return {"id": "x", "model": f"{body['model']}-v1", "choices": [choice], "usage": usage}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def stub(self) -> Stub:
        assert isinstance(self.server, _Server)
        return self.server.stub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.get()

    def do_POST(self) -> None:
        self.post()

    def get(self) -> None:
        if self.stub.pages:
            return self.send(200, b"<html><title>Sign in</title></html>", "text/html")
        if not self.path.startswith(self.stub.paths):
            return self.reply(404, {"error": {"message": "no such path"}})
        if self.stub.models is None:
            self.reply(404, {"error": {"message": "no list"}})
        else:
            self.reply(200, {"object": "list", "data": self.stub.models})

    def post(self) -> None:
        if self.stub.pages:
            self.rfile.read(int(self.headers["Content-Length"]))
            return self.send(200, b"<html><title>Sign in</title></html>", "text/html")
        if not (self.path.partition("?")[0].endswith("/chat/completions") and self.path.startswith(self.stub.paths)):
            self.rfile.read(int(self.headers["Content-Length"]))
            return self.reply(404, {"error": {"message": "no such path"}})
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.stub.lock:
            self.stub.at_once += 1
            self.stub.most_at_once = max(self.stub.most_at_once, self.stub.at_once)
        try:
            self.complete(body)
        finally:
            with self.stub.lock:
                self.stub.at_once -= 1

    def complete(self, body: dict[str, Any]) -> None:
        text = body["messages"][-1]["content"]
        texts = texts_of(text)
        key = "" if texts else "probe"
        key += hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        with self.stub.lock:
            attempt, self.stub.seen[key] = self.stub.seen[key], self.stub.seen[key] + 1
            self.stub.requests.append(body)
            self.stub.headers.append({"path": self.path, **dict(self.headers)})
            self.stub.received[self.headers["X-Client-Request-Id"]] += 1
        refusal = self.stub.refuses(body)
        if refusal:
            return self.reply(400, {"error": {"message": refusal, "type": "invalid_request_error"}})
        fault = None if key.startswith("probe") else self.stub.faults(key, attempt)
        if fault == "429":
            return self.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.02"})
        if fault in ("401", "402", "403", "404", "500", "502", "503", "529"):
            return self.reply(int(fault), {"error": {"message": "no"}})
        if fault == "echo":  # what came with the request is repeated
            return self.reply(
                503, {"error": {"message": f"{self.path} {self.headers['Authorization']} me:hunter2secret"}}
            )
        if fault == "quota":
            return self.reply(429, {"error": {"message": "pay first", "code": "insufficient_quota"}})
        if fault == "refused connection":
            return self.reset()
        time.sleep(self.stub.latency)
        with self.stub.lock:
            self.stub.bill[key] += 1
            self.stub.charged[self.headers["X-Client-Request-Id"]] += 1
        self.answer(self.stub.completion(body, texts), fault)

    def answer(self, content: dict[str, Any], fault: str | None) -> None:
        if fault == "html":
            return self.send(200, b"<html>Bad gateway</html>", "text/html")
        if fault == "empty":
            content["choices"] = []
        raw = json.dumps(content).encode()
        if fault == "json":
            return self.send(200, raw[: len(raw) // 2])
        if fault in ("reset", "torn"):
            if fault == "torn":
                self.send(200, raw[: len(raw) // 2], length=len(raw))
            return self.reset()
        if fault == "cut":
            self.close_connection = True
            return self.send(200, raw, length=len(raw) + 100)
        if fault == "hang":
            time.sleep(self.stub.hang)
        self.send(200, raw)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def reply(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(content).encode(), headers=headers)

    def send(
        self,
        status: int,
        body: bytes,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.close()


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Forty prompts with answers of different lengths; on two of them the stub's judge has no opinion."""
    rows = []
    for i in range(40):
        words = "mumble" if i in (7, 23) else "word"
        rows.append(
            {
                "prompt": f"\n<|user|>\nQuestion {i}?\n<|assistant|>\n",
                "chosen": f"Chosen {i} {words * (i % 5 + 1)}.",
                "policy": f"Policy {i} {'word' * (i % 7 + 1)}!",
            }
        )
    file = tmp_path / "samples.json"
    file.write_text(json.dumps({"sampled_at": "now", "config": {"exp_name": "kto"}, "samples": rows}))
    return file
