"""What the wire costs per Converse call, how soon the server is ready, and what it holds. `make bench-wire`.

The cost is CPU time of this process per call through `outcrop.wire`, with a function that answers at once and without a
socket: median of several batches. Once without the hand-over of the function to a thread and back (routing, signature,
reading, checking, writing: the wire's own work), and once with it; on virtual machines waking another processor is dear.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks import record
from outcrop.wire import Wire

PATH = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aprovisioned-model%2Fabcdefghijkl/converse"
BODY = json.dumps(
    {
        "messages": [{"role": "user", "content": [{"text": "hello there my friend"}]}],
        "inferenceConfig": {"maxTokens": 10},
    }
)
ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}}, "stopReason": "end_turn",
    "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}, "metrics": {"latencyMs": 1},
}  # fmt: skip


class Keys:
    """One pair."""

    def secret_of(self, access_key: str) -> str | None:
        return "secret"

    def accepts_bearer(self, token: str) -> bool:
        return False


class Inline(Wire):
    """Calls functions where it stands."""

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


async def per_call(kind: type[Wire], calls: int) -> float:
    """Microseconds of CPU per call."""
    wire = kind({("bedrock-runtime", "Converse"): lambda request, context: ANSWER}, Keys(), Path(tempfile.mkdtemp()))
    request = AWSRequest(
        "POST",
        f"http://127.0.0.1:1{PATH}",
        data=BODY,
        headers={"Content-Type": "application/json", "Host": "127.0.0.1:1"},
    )
    SigV4Auth(Credentials("key", "secret"), "bedrock", "us-east-1").add_auth(request)
    headers = [(name.lower().encode(), str(value).encode()) for name, value in request.headers.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY.encode()}

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", 200) == 200

    async def batch(count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            await wire(scope, receive, send)
        return (time.process_time() - began) / count * 1e6

    await batch(200)
    return statistics.median([await batch(calls // 7) for _ in range(7)])


def server() -> tuple[float, float]:
    """(seconds until ready, MB held) of a server without engines, its worker left out."""
    home = tempfile.mkdtemp()
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "outcrop", "serve", "--port", "0"],
        env={**os.environ, "OUTCROP_HOME": home},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    ready = time.monotonic() - began
    held = next(
        line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    process.terminate()
    process.wait()
    return ready, int(held.split()[1]) / 1000


def main() -> None:
    """Run it and write benchmarks/results/wire.json."""
    cost, whole = (asyncio.run(per_call(kind, 7000)) for kind in (Inline, Wire))
    starts = [server() for _ in range(3)]
    ready, held = (statistics.median(values) for values in zip(*starts, strict=True))
    print(
        f"wire: {cost:.0f} us of CPU per Converse call, {whole:.0f} us with the hand-over to a thread; server ready in {ready:.2f} s, holds {held:.0f} MB"
    )
    print(
        record.write(
            "wire",
            {
                "us_per_call": round(cost, 1),
                "us_with_thread": round(whole, 1),
                "ready_s": round(ready, 2),
                "held_mb": round(held),
            },
        )
    )


if __name__ == "__main__":
    main()
