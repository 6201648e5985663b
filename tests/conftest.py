"""A real server in a process of its own, and clients that point at it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from outcrop.keys import LocalKeys

# The commands of this environment come first, whether it is activated or not.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
ROLE = "arn:aws:iam::123456789012:role/tester"


@dataclass
class Outcrop:
    """A running server."""

    home: Path
    endpoint: str
    process: "subprocess.Popen[bytes]"

    @property
    def keys(self) -> LocalKeys:
        return LocalKeys.of(self.home)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {
            **kept,
            "OUTCROP_HOME": str(self.home),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.keys.access_key,
            "AWS_SECRET_ACCESS_KEY": self.keys.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/nonexistent",
        }

    def client(self, service: str, **more: Any) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=more.pop("access_key", self.keys.access_key),
            aws_secret_access_key=more.pop("secret", self.keys.secret),
            region_name=more.pop("region", "us-east-1"),
            config=Config(retries={"max_attempts": 0}, read_timeout=120, **more.pop("config", {})),
            **more,
        )

    def put_lines(self, uri: str, lines: list[str]) -> None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        s3 = self.client("s3")
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key=key, Body="".join(line + "\n" for line in lines).encode())

    def wait(self, get: Any, until: set[str], seconds: float = 200) -> Any:
        """Poll until the status is one of these."""
        end = time.monotonic() + seconds
        while True:
            answer = get()
            if answer["status"] in until:
                return answer
            assert time.monotonic() < end, answer
            time.sleep(0.2)

    def tune(self, name: str, **more: Any) -> Any:
        """Run a customization job to its end; answers with GetModelCustomizationJob."""
        bedrock = self.client("bedrock")
        request = {
            "jobName": name, "customModelName": name, "roleArn": ROLE, "baseModelIdentifier": "outcrop.pebble-v1:0",
            "trainingDataConfig": {"s3Uri": "s3://lessons/train.jsonl"}, "outputDataConfig": {"s3Uri": "s3://lessons/out"},
        }  # fmt: skip
        arn = bedrock.create_model_customization_job(**(request | more))["jobArn"]
        return self.wait(
            lambda: bedrock.get_model_customization_job(jobIdentifier=arn), {"Completed", "Failed", "Stopped"}
        )

    def ask(self, model: str, text: str, **more: Any) -> str:
        answer = self.client("bedrock-runtime").converse(
            modelId=model, messages=[{"role": "user", "content": [{"text": text}]}], **more
        )
        return str(answer["output"]["message"]["content"][0]["text"])


def start(home: Path, *arguments: str, **environment: str) -> Outcrop:
    """Start `outcrop serve` on a free port and wait until it says that it is ready."""
    log = home.parent / f"{home.name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "outcrop", "serve", "--port", "0", *arguments],
            env={**os.environ, "OUTCROP_HOME": str(home), "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=file,
        )
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    assert line.startswith("Outcrop is ready at "), (line, log.read_text())
    return Outcrop(home, line.split()[4], process)


def end(server: Outcrop) -> None:
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    assert server.process.stdout is not None
    server.process.stdout.close()


@pytest.fixture(scope="session")
def outcrop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcrop]:
    server = start(tmp_path_factory.mktemp("server") / "home")
    yield server
    end(server)
