"""What a service promises under way: int8 weights, clients that leave, a provisioned model in a crowd."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from outcrop.demo.tickets import tickets
from tests.conftest import Outcrop, end, start
from tests.journeys.test_proof import deploy

BASE = "outcrop.pebble-v1:0"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcrop]:
    """A server with few places and int8 weights."""
    settings = {"OUTCROP_ENGINE_SLOTS": "2", "OUTCROP_ENGINE_WEIGHTS": "int8", "OUTCROP_OPEN": "true"}
    server = start(tmp_path_factory.mktemp("small") / "home", **settings)
    yield server
    end(server)


def test_a_tuned_model_is_proven_in_int8_too(small: Outcrop) -> None:
    small.put_lines("s3://lessons/train.jsonl", [ticket.row for ticket in islice(tickets(3), 48)])
    job = small.tune("clerk", hyperParameters={"epochCount": "2", "batchSize": "8"})
    assert job["status"] == "Completed", job.get("failureMessage")
    deployed = deploy(small, "clerk-int8", job["outputModelArn"])
    assert deployed["status"] == "Active", deployed.get("failureMessage")
    assert small.ask(deployed["customModelDeploymentArn"], "My vacuum is broken.")


def converse(server: Outcrop, tokens: int) -> Any:
    body = {
        "messages": [{"role": "user", "content": [{"text": "Write a story without an end."}]}],
        "inferenceConfig": {"maxTokens": tokens, "temperature": 1.0}, "additionalModelRequestFields": {"top_k": 50},
    }  # fmt: skip
    data = json.dumps(body).encode()
    host, port = server.endpoint.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST /model/{BASE}/converse HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def test_a_client_that_leaves_gives_its_place_to_others(small: Outcrop) -> None:
    small.ask(BASE, "Hello")  # the engine is up
    left = [converse(small, 900) for _ in range(2)]
    time.sleep(0.15)
    for connection in left:
        connection.close()
    began = time.monotonic()
    small.ask(BASE, "Hello", inferenceConfig={"maxTokens": 3})
    assert time.monotonic() - began < 0.5, "the answers that nobody waits for were finished first"


def test_too_many_at_once_are_answered_or_throttled_and_told_when_to_come_again(small: Outcrop) -> None:
    outcomes: list[str] = []
    retry: list[str] = []

    def ask() -> None:
        try:
            small.ask(BASE, "Write a story.", inferenceConfig={"maxTokens": 200, "temperature": 1.0})
            outcomes.append("answered")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])
            retry.append(error.response["ResponseMetadata"]["HTTPHeaders"].get("retry-after", ""))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 40
    assert set(outcomes) == {"answered", "ThrottlingException"}
    assert set(retry) == {"1"}


def test_the_engines_have_nothing_to_complain_of(small: Outcrop) -> None:
    logs = [path.read_text() for path in Path(small.home / "logs").glob("engine-*.log")]
    assert logs
    assert not [text for text in logs if "Traceback" in text]
