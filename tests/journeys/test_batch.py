"""Files of requests become files of answers: each record once, whatever is killed."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import ROLE, Outcrop, end, start
from tests.journeys.test_unkillable import environment_of, processes

pytestmark = pytest.mark.slow
BASE = "outcrop.pebble-v1:0"


def create(server: Outcrop, name: str, lines: list[Any], **more: Any) -> str:
    server.put_lines(f"s3://batch/in/{name}.jsonl", [one if isinstance(one, str) else json.dumps(one) for one in lines])
    return str(
        server.client("bedrock").create_model_invocation_job(
            jobName=name, roleArn=ROLE, modelId=BASE,
            inputDataConfig={"s3InputDataConfig": {"s3Uri": f"s3://batch/in/{name}.jsonl"}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://batch/out/"}}, **more,
        )["jobArn"]
    )  # fmt: skip


def finish(server: Outcrop, arn: str) -> Any:
    bedrock = server.client("bedrock")
    return server.wait(
        lambda: bedrock.get_model_invocation_job(jobIdentifier=arn),
        {"Completed", "Failed", "Stopped", "PartiallyCompleted"},
    )


def written(server: Outcrop, arn: str, name: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
    s3 = server.client("s3")
    prefix = f"out/{arn[-12:]}"
    answers, manifest = (
        s3.get_object(Bucket="batch", Key=f"{prefix}/{key}")["Body"].read()
        for key in (f"{name}.jsonl.out", "manifest.json.out")
    )
    return [json.loads(line) for line in answers.splitlines()], json.loads(manifest)


def native(number: int, **more: Any) -> dict[str, Any]:
    body = {"prompt": f"What is the capital of place {number}?", "max_gen_len": 6, "temperature": 0, **more}
    return {"recordId": f"record-{number}", "modelInput": body}


def test_native_bodies_are_answered_as_invoke_model_answers_them(outcrop: Outcrop) -> None:
    lines: list[Any] = [native(number) for number in range(12)]
    lines += [{"modelInput": lines[0]["modelInput"]}, native(13, max_gen_len="many"), {"recordId": "x"}, "{", '"text"']
    arn = create(outcrop, "native", lines)
    job = finish(outcrop, arn)
    assert job["status"] == "Completed", job.get("message")
    answers, manifest = written(outcrop, arn, "native")
    assert manifest["totalRecordCount"] == manifest["processedRecordCount"] == len(answers) == 17
    assert (manifest["successRecordCount"], manifest["errorRecordCount"]) == (13, 4)
    assert (job["successRecordCount"], job["errorRecordCount"]) == (13, 4)
    assert manifest["outputTokenCount"] > 0
    by_id = {answer["recordId"]: answer for answer in answers}
    runtime = outcrop.client("bedrock-runtime")
    for number in (0, 7):
        told = runtime.invoke_model(modelId=BASE, body=json.dumps(native(number)["modelInput"]))["body"].read()
        assert by_id[f"record-{number}"]["modelOutput"] == json.loads(told)
    made_up = next(key for key in by_id if len(key) == 11 and key.isalnum() and "modelOutput" in by_id[key])
    assert by_id[made_up]["modelOutput"]["generation"] == by_id["record-0"]["modelOutput"]["generation"]
    errors = {answer["error"]["errorMessage"] for answer in answers if "error" in answer}
    assert any("max_gen_len" in error for error in errors)
    assert "line 15: modelInput must be an object" in errors
    assert any(error.startswith("line 16 is not a JSON object") for error in errors)


def test_converse_bodies_are_answered_as_converse_answers_them(outcrop: Outcrop) -> None:
    body = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}], "inferenceConfig": {"maxTokens": 5}}
    broken = {"messages": [{"role": "user", "content": "Hello"}]}
    lines = [{"recordId": "good", "modelInput": body}, {"recordId": "bad", "modelInput": broken}]
    arn = create(outcrop, "talks", lines, modelInvocationType="Converse")
    assert finish(outcrop, arn)["status"] == "Completed"
    by_id = {answer["recordId"]: answer for answer in written(outcrop, arn, "talks")[0]}
    told = outcrop.client("bedrock-runtime").converse(modelId=BASE, **body)
    assert by_id["good"]["modelOutput"]["output"] == told["output"]
    assert by_id["good"]["modelOutput"]["usage"] == told["usage"]
    assert by_id["bad"]["error"]["errorCode"] == 400


def test_files_of_like_names_under_a_prefix_have_answers_of_their_own(outcrop: Outcrop) -> None:
    for day in ("monday", "tuesday"):
        outcrop.put_lines(f"s3://batch/week/{day}/asked.jsonl", [json.dumps(native(1) | {"recordId": day})])
    arn = outcrop.client("bedrock").create_model_invocation_job(
        jobName="week", roleArn=ROLE, modelId=BASE,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://batch/week/"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://batch/out/"}},
    )["jobArn"]  # fmt: skip
    assert finish(outcrop, arn)["status"] == "Completed"
    for day in ("monday", "tuesday"):
        (answer,) = written(outcrop, arn, f"{day}/asked")[0]
        assert answer["recordId"] == day


def test_jobs_of_two_kinds_may_have_one_name(outcrop: Outcrop) -> None:
    """AWS keeps names unique within each kind of job."""
    arn = create(outcrop, "both", [native(1)])
    outcrop.put_lines("s3://lessons/both.jsonl", [json.dumps({"prompt": "a", "completion": "b"})] * 8)
    tuned = outcrop.tune("both", trainingDataConfig={"s3Uri": "s3://lessons/both.jsonl"})
    assert tuned["status"] == "Completed", tuned.get("failureMessage")
    assert finish(outcrop, arn)["status"] == "Completed"
    with pytest.raises(ClientError, match="already a job named both"):
        create(outcrop, "both", [native(1)])


def test_what_cannot_be_answered_is_refused(outcrop: Outcrop) -> None:
    outcrop.put_lines("s3://batch/in/one.jsonl", [json.dumps(native(1))])
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        outcrop.client("bedrock").create_model_invocation_job(
            jobName="no-model", roleArn=ROLE, modelId="nobody.nothing-v1:0",
            inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://batch/in/one.jsonl"}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://batch/out/"}},
        )  # fmt: skip
    with pytest.raises(ClientError, match="s3EncryptionKeyId"):
        outcrop.client("bedrock").create_model_invocation_job(
            jobName="no-key", roleArn=ROLE, modelId=BASE,
            inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://batch/in/one.jsonl"}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://batch/out/", "s3EncryptionKeyId": "alias/key"}},
        )  # fmt: skip
    arn = outcrop.client("bedrock").create_model_invocation_job(
        jobName="no-input", roleArn=ROLE, modelId=BASE,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://batch/nowhere/"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://batch/out/"}},
    )["jobArn"]  # fmt: skip
    assert "there is no file that ends in .jsonl" in finish(outcrop, arn)["message"]


def test_a_killed_worker_and_a_stop_lose_and_repeat_nothing(tmp_path: Path) -> None:
    own = start(tmp_path / "home")
    long = [native(number, max_gen_len=40) for number in range(150)]
    arn = create(own, "killed", long)
    answers = own.home / "runs" / arn[-12:] / "0.answers"
    until = time.monotonic() + 90
    while not answers.exists() or answers.read_bytes().count(b"\n") < 20:
        assert time.monotonic() < until
        time.sleep(0.01)
    (worker,) = (pid for pid in processes("outcrop worker") if str(own.home) in environment_of(pid))
    os.kill(worker, signal.SIGKILL)
    assert finish(own, arn)["status"] == "Completed"
    found, manifest = written(own, arn, "killed")
    assert sorted(answer["recordId"] for answer in found) == sorted(one["recordId"] for one in long)
    assert manifest["successRecordCount"] == 150

    arn = create(own, "stopped", [native(number, max_gen_len=60) for number in range(2000)])
    bedrock = own.client("bedrock")
    until = time.monotonic() + 90
    while bedrock.get_model_invocation_job(jobIdentifier=arn).get("processedRecordCount", 0) < 10:
        assert time.monotonic() < until
        time.sleep(0.05)
    bedrock.stop_model_invocation_job(jobIdentifier=arn)
    job = finish(own, arn)
    assert job["status"] == "Stopped"
    found, manifest = written(own, arn, "stopped")
    assert 10 <= len(found) == manifest["processedRecordCount"] < 2000
    end(own)
