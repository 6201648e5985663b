"""vLLM behind the engine's protocol: its OpenAI-shaped server, in an environment of its own, spoken to over HTTP.

`python -m outcrop.serving.engines.vllm_engine FOLDER SOCKET THREADS SLOTS FORMAT CACHE ADAPTERS PAUSE SERVER`, where SERVER is
vLLM's command, which is then started for this base, or the address of a server that runs it already. Adapters are loaded
while it runs. Fields as of vLLM 0.32: `return_token_ids`, `prompt_logprobs`, `structured_outputs`.
"""

import hashlib
import http.client
import logging
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from outcrop.jobs.children import child
from outcrop.serving.engines.listening import take_requests
from outcrop.serving.protocol import REQUESTS, Embed, Generate, Load, Reply, Request, Score

log = logging.getLogger("outcrop.engine")

BASE = "base"
STARTS_WITHIN_S = 1800.0
ANSWERS_WITHIN_S = 600.0
# vLLM keeps so many adapters on the GPU at once, of at most this rank; it holds more in the machine's memory.
MOST_ADAPTERS, MOST_RANK = 8, 64


class Refused(Exception):
    """What vLLM says that it does not do."""


class Vllm:
    """A running server with one base model."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._model = BASE
        self._adapters: dict[str, str] = {}
        self._loading = threading.Lock()

    def find_model(self) -> None:
        """Ask what the base model is called. Raises OSError when nobody answers."""
        self._model = self._read("GET", "/v1/models")["data"][0]["id"]

    def load(self, folder: str | None) -> str:
        """The name under which an adapter, or the base, is asked for; an adapter that is new is loaded."""
        if folder is None:
            return self._model
        with self._loading:
            if folder not in self._adapters:
                name = f"adapter-{hashlib.sha256(folder.encode()).hexdigest()[:12]}"
                try:
                    self._open("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder}).read()
                except Refused as error:
                    if "already been" not in str(error):
                        raise
                self._adapters[folder] = name
            return self._adapters[folder]

    def generate(self, request: Generate) -> Iterator[Reply]:
        """Replies as they come. Closing the iterator closes the connection, which makes vLLM stop."""
        body: dict[str, Any] = {
            "model": self.load(request.adapter), "prompt": request.tokens, "max_tokens": request.max_tokens, "stream": True,
            "temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k or -1, "seed": request.seed,
            "stop_token_ids": request.stop_tokens, "return_token_ids": True, "skip_special_tokens": False,
        }  # fmt: skip
        if request.logprobs is not None:
            body |= {"logprobs": request.logprobs, "return_tokens_as_token_ids": True}
        if request.grammar is not None:
            body["structured_outputs"] = {"json": _schema(request.grammar)}
        answer = self._open("POST", "/v1/completions", body)
        try:
            for line in answer:
                if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                    continue
                event = msgspec.json.decode(line[6:])
                if "error" in event:
                    raise Refused(str(event["error"].get("message", event["error"])))
                for choice in event["choices"]:
                    yield from _replies(choice, set(request.stop_tokens))
        finally:
            answer.close()

    def score(self, request: Score) -> float:
        """What the tokens at the request's places cost, summed (nats)."""
        body = {
            "model": self.load(request.adapter), "prompt": request.tokens, "max_tokens": 1, "temperature": 0,
            "prompt_logprobs": 0,
        }  # fmt: skip
        told = self._read("POST", "/v1/completions", body)["choices"][0]["prompt_logprobs"]
        return -sum(float(told[place][str(request.tokens[place])]["logprob"]) for place in request.places)

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            self._open("GET", "/health").read()
        except (OSError, Refused, http.client.HTTPException):
            return False
        return True

    def _read(self, method: str, path: str, body: Any = None) -> Any:
        return msgspec.json.decode(self._open(method, path, body).read())

    def _open(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=ANSWERS_WITHIN_S)
        data = None if body is None else msgspec.json.encode(body)
        connection.request(method, path, data, {"Content-Type": "application/json", "Connection": "close"})
        answer = connection.getresponse()
        if answer.status >= 400:
            text = answer.read().decode(errors="replace")
            raise Refused(f"vLLM answers {answer.status}: {text[:500]}")
        return answer


def _replies(choice: dict[str, Any], stops: set[int]) -> Iterator[Reply]:
    """A chunk's tokens; the stop token itself is not told."""
    tokens: list[int] = [token for token in choice.get("token_ids") or [] if token not in stops]
    reason = choice.get("finish_reason")
    told = choice.get("logprobs") or {}
    for place, token in enumerate(tokens):
        logprob, top = None, []
        if told:
            logprob = told["token_logprobs"][place]
            likeliest = (told.get("top_logprobs") or [{}] * len(tokens))[place] or {}
            top = sorted(((_token(name), value) for name, value in likeliest.items()), key=lambda pair: -pair[1])
        is_last = reason == "length" and place == len(tokens) - 1
        yield Reply(token=token, logprob=logprob, top=top, done="length" if is_last else "")
    if reason is not None and not (reason == "length" and tokens):
        yield Reply(done="stop" if reason == "stop" else "length")


def _token(name: str) -> int:
    return int(name.removeprefix("token_id:"))


def _schema(grammar: str) -> Any:
    """The JSON schema in a grammar of llguidance's form."""
    return msgspec.json.decode(grammar)["grammars"][0]["json_schema"]


def answer(connection: socket.socket, vllm: Vllm) -> None:
    """Serve one request."""
    with connection, connection.makefile("rb") as lines:
        try:
            request = REQUESTS.decode(lines.readline())
            for reply in _answered(request, vllm):
                connection.sendall(msgspec.json.encode(reply) + b"\n")
        except (Refused, msgspec.DecodeError, KeyError, http.client.HTTPException) as error:
            log.exception("a request failed")
            connection.sendall(msgspec.json.encode(Reply(done="error", reason=str(error))) + b"\n")
        except OSError as error:
            log.warning("a connection ended: %s", error)  # the client left, or vLLM did


def _answered(request: Request, vllm: Vllm) -> Iterator[Reply]:
    if isinstance(request, Score):
        yield Reply(done="scored", loss=vllm.score(request))
    elif isinstance(request, Load):
        vllm.load(request.adapter)
        yield Reply(done="ready")
    elif isinstance(request, Embed):
        yield Reply(done="error", reason="this model continues a text; it makes no embeddings")
    else:
        yield from vllm.generate(request)


def begin(command: str, folder: str, slots: int) -> Vllm:
    """Start a server for a base, and wait until it answers. Raises RuntimeError when it ends, or takes too long."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        *shlex.split(command), "serve", folder, "--host", "127.0.0.1", "--port", str(port), "--served-model-name", BASE,
        "--enable-lora", "--max-loras", str(MOST_ADAPTERS), "--max-lora-rank", str(MOST_RANK), "--max-num-seqs", str(slots),
    ]  # fmt: skip
    server = child(arguments, None, {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"})
    vllm = Vllm(f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not vllm.is_up():
        if server.poll() is not None:
            raise RuntimeError(f"{command} ended with {server.returncode}; what it said is above")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{command} did not answer within {STARTS_WITHIN_S:.0f} seconds")
        time.sleep(0.2)
    return vllm


def main(folder: str, path: str, _threads: str, slots: str, *others: str) -> None:
    """Have vLLM at hand, then listen; the socket appears when requests can be answered."""
    logging.basicConfig(level=logging.INFO)
    server = others[-1]
    if server.startswith(("http://", "https://")):
        vllm = Vllm(server)
        vllm.find_model()
    else:
        vllm = begin(server, folder, int(slots))
    take_requests(path, lambda connection: answer(connection, vllm))


if __name__ == "__main__":
    main(*sys.argv[1:])
