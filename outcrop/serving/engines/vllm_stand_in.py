"""A stand-in for vLLM's server, for tests and for trying out the vllm engine without a GPU.

`python -m outcrop.serving.engines.vllm_stand_in serve FOLDER --port N ...` takes vLLM's arguments and answers the part of
its protocol that Outcrop speaks, in the shapes that vLLM 0.32 gives. The embedded engine thinks for it, one request at a
time.
"""

import itertools
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from llguidance import LLMatcher

from outcrop.serving.engines.torch_engine import TorchEngine, prepare
from outcrop.serving.protocol import Generate, Score


class Server(ThreadingHTTPServer):
    """One model, its adapters by name."""

    def __init__(self, port: int, folder: Path, name: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        prepare(1)
        self.engine = TorchEngine(folder, 1)
        self.thinking = threading.Lock()
        self.models: dict[str, str | None] = {name: None}


class Handler(BaseHTTPRequestHandler):
    """vLLM's paths."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """/health and /v1/models."""
        if self.path == "/health":
            self._send(200, b"", "text/plain")
        else:
            self._json({"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]})

    def do_POST(self) -> None:
        """Adapters and completions."""
        body = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            self._load(body)
        elif body["model"] not in self.server.models:
            self._refuse(404, f"The model `{body['model']}` does not exist.")
        elif body.get("prompt_logprobs") is not None:
            self._score(body)
        else:
            self._complete(body)

    def _load(self, body: dict[str, Any]) -> None:
        name, folder = body["lora_name"], body["lora_path"]
        if name in self.server.models:
            self._refuse(400, f"The lora adapter '{name}' has already been loaded.")
            return
        try:
            with self.server.thinking:
                self.server.engine.adapters.load(folder)
        except (OSError, ValueError) as error:
            self._refuse(400, str(error))
            return
        self.server.models[name] = folder
        self._send(200, f"Success: LoRA adapter '{name}' added successfully.".encode(), "text/plain")

    def _score(self, body: dict[str, Any]) -> None:
        tokens, adapter = body["prompt"], self.server.models[body["model"]]
        told: list[Any] = [None]
        with self.server.thinking:
            for place in range(1, len(tokens)):
                loss = self.server.engine.score(Score(tokens, [place], adapter))
                told.append({str(tokens[place]): {"logprob": -loss, "rank": 1, "decoded_token": ""}})
        self._json({"choices": [{"index": 0, "text": "", "finish_reason": "length", "prompt_logprobs": told}]})

    def _complete(self, body: dict[str, Any]) -> None:
        wanted = body.get("structured_outputs")
        grammar = None
        if wanted:
            schema = msgspec.json.encode(wanted["json"]).decode()
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
        request = Generate(
            tokens=body["prompt"], max_tokens=body["max_tokens"], stop_tokens=body["stop_token_ids"], top_p=body["top_p"],
            temperature=body["temperature"], top_k=max(0, body["top_k"]), seed=body["seed"], logprobs=body.get("logprobs"),
            adapter=self.server.models[body["model"]], grammar=grammar,
        )  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        engine = self.server.engine
        with self.server.thinking:
            one = engine.admit(request)
            assert one is not None
            try:
                reason = None
                while reason is None:
                    if one not in engine.turn():
                        continue
                    token = one.said.token
                    is_end = token in request.stop_tokens
                    reason = "stop" if is_end else "length" if len(one.answer) == request.max_tokens else None
                    told = None
                    if one.said.logprob is not None:
                        top = {f"token_id:{name}": logprob for name, logprob in one.said.top}
                        told = {"token_logprobs": [one.said.logprob], "top_logprobs": [top]}
                    choice = {"index": 0, "text": "", "token_ids": [token], "logprobs": told, "finish_reason": reason}
                    self._event({"choices": [choice]})
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                pass  # the client left
            finally:
                engine.drop(one)
        self.close_connection = True

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + msgspec.json.encode(event) + b"\n\n")
        self.wfile.flush()

    def _refuse(self, status: int, message: str) -> None:
        error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
        self._send(status, msgspec.json.encode({"error": error}), "application/json")

    def _json(self, body: Any) -> None:
        self._send(200, msgspec.json.encode(body), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def main(arguments: list[str]) -> None:
    """Serve until the process ends."""
    options = dict(itertools.pairwise(arguments))
    Server(int(options["--port"]), Path(arguments[1]), options["--served-model-name"]).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
