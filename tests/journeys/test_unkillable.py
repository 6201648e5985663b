"""Whatever is killed, the job ends with the same weights and a story without gaps."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from outcrop.demo.tickets import tickets
from tests.conftest import ROLE, Outcrop, end, start

pytestmark = pytest.mark.slow
BASE = "outcrop.pebble-v1:0"
MORE = {"hyperParameters": {"epochCount": "10", "batchSize": "4", "loraRank": "4"}}


def server_at(home: Path) -> Outcrop:
    return start(home, OUTCROP_TRAINING_THREADS="1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unkillable") / "home"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Outcrop]:
    server = server_at(home)
    server.put_lines("s3://lessons/train.jsonl", [ticket.row for ticket in islice(tickets(3), 64)])
    yield server
    end(server)


@pytest.fixture(scope="module")
def plain(server: Outcrop) -> dict[str, bytes]:
    job = server.tune("plain", **MORE)
    assert job["status"] == "Completed", job.get("failureMessage")
    return outputs(server, job)


def outputs(server: Outcrop, job: Any) -> dict[str, bytes]:
    """Everything that a job wrote, by its name in the output folder."""
    s3 = server.client("s3")
    prefix = f"out/model-customization-job-{job['jobArn'][-12:]}/"
    listed = s3.list_objects_v2(Bucket="lessons", Prefix=prefix)["Contents"]
    return {
        entry["Key"].removeprefix(prefix): s3.get_object(Bucket="lessons", Key=entry["Key"])["Body"].read()
        for entry in listed
    }


def begin(server: Outcrop, name: str) -> str:
    arn = server.client("bedrock").create_model_customization_job(
        jobName=name, customModelName=name, roleArn=ROLE, baseModelIdentifier=BASE,
        trainingDataConfig={"s3Uri": "s3://lessons/train.jsonl"}, outputDataConfig={"s3Uri": "s3://lessons/out"}, **MORE,
    )["jobArn"]  # fmt: skip
    return str(arn)


def events(server: Outcrop, name: str) -> list[dict[str, Any]]:
    told = subprocess.run(
        ["outcrop", "jobs", "watch", name, "--json"], env=server.environment, capture_output=True, text=True, timeout=120,
        check=False,
    ).stdout  # fmt: skip
    return [json.loads(line) for line in told.splitlines()]


def wait_for_step(home: Path, arn: str, step: int) -> None:
    progress = home / "runs" / arn[-12:] / "progress.jsonl"
    until = time.monotonic() + 60
    while not progress.exists() or f'"step":{step},' not in progress.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)


def processes(pattern: str) -> list[int]:
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


@pytest.mark.pain(16)
def test_child_worker_and_server_are_killed_and_the_job_ends_the_same(
    server: Outcrop, home: Path, plain: dict[str, bytes], tmp_path: Path
) -> None:
    own = server_at(tmp_path / "home")
    own.put_lines("s3://lessons/train.jsonl", [ticket.row for ticket in islice(tickets(3), 64)])
    arn = begin(own, "killed")
    wait_for_step(own.home, arn, 20)
    (worker,) = (pid for pid in processes("outcrop worker") if str(own.home) in environment_of(pid))
    os.kill(worker, signal.SIGKILL)
    wait_for_step(own.home, arn, 60)
    own.process.kill()
    own.process.wait()
    own.process.stdout.close()  # type: ignore[union-attr]
    own = server_at(tmp_path / "home")
    bedrock = own.client("bedrock")
    job = own.wait(lambda: bedrock.get_model_customization_job(jobIdentifier=arn), {"Completed", "Failed"})
    assert job["status"] == "Completed", job.get("failureMessage")
    told = events(own, "killed")
    steps = [event["step"] for event in told if event["kind"] == "step"]
    assert steps == list(range(1, 161)), "no step is missing or told twice"
    assert sum(event["kind"] == "plan" for event in told) == 1, "what was rendered is not rendered again"
    assert outputs(own, job) == plain
    end(own)


def environment_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


def test_a_stopped_job_goes_on_and_ends_the_same(server: Outcrop, home: Path, plain: dict[str, bytes]) -> None:
    bedrock = server.client("bedrock")
    arn = begin(server, "stopped")
    wait_for_step(home, arn, 10)
    bedrock.stop_model_customization_job(jobIdentifier=arn)
    job = server.wait(lambda: bedrock.get_model_customization_job(jobIdentifier=arn), {"Stopped", "Completed"})
    assert job["status"] == "Stopped"
    said = subprocess.run(
        ["outcrop", "jobs", "resume", "stopped"], env=server.environment, capture_output=True, text=True, check=True
    ).stdout
    assert "InProgress" in said
    job = server.wait(lambda: bedrock.get_model_customization_job(jobIdentifier=arn), {"Completed", "Failed"})
    assert job["status"] == "Completed", job.get("failureMessage")
    ended = outputs(server, job)
    assert {name: ended[name] for name in plain} == plain
    steps = [event["step"] for event in events(server, "stopped") if event["kind"] == "step"]
    assert steps == list(range(1, 161))


def test_a_checkpoint_is_made_a_model_and_answers(server: Outcrop, plain: dict[str, bytes]) -> None:
    bedrock = server.client("bedrock")
    (job,) = bedrock.list_model_customization_jobs(nameContains="plain")["modelCustomizationJobSummaries"]
    checkpoints = sorted({name.split("/")[1] for name in plain if name.startswith("checkpoints/")})
    assert checkpoints == [f"step-{step:07d}" for step in range(16, 161, 16)]
    folder = f"s3://lessons/out/model-customization-job-{job['jobArn'][-12:]}/checkpoints/{checkpoints[1]}/"
    arn = bedrock.create_custom_model(
        modelName="second", roleArn=ROLE, modelSourceConfig={"s3DataSource": {"s3Uri": folder}}
    )["modelArn"]
    server.wait(lambda: {"status": bedrock.get_custom_model(modelIdentifier=arn)["modelStatus"]}, {"Active", "Failed"})
    assert bedrock.get_custom_model(modelIdentifier=arn)["modelStatus"] == "Active"
    question = json.loads(next(tickets(3)).row)["messages"][0]["content"]
    assert server.ask(arn, question, inferenceConfig={"maxTokens": 5})
