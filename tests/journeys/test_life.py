"""The whole way, with real clients against a real server."""

import csv
import io
import json
import os
import signal
import subprocess
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError
from safetensors.numpy import load as load_safetensors

from outcrop.demo.tickets import SYSTEM, tickets
from tests.conftest import ROLE, Outcrop, end, start

BASE = "outcrop.pebble-v1:0"
FEW = {"epochCount": "1", "batchSize": "8"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lessons(outcrop: Outcrop) -> None:
    rows = [ticket.row for ticket in islice(tickets(3), 60)]
    outcrop.put_lines("s3://lessons/train.jsonl", rows[:48])
    outcrop.put_lines("s3://lessons/validation.jsonl", rows[48:])


@pytest.fixture(scope="module")
def job(outcrop: Outcrop, lessons: None) -> Any:
    return outcrop.tune(
        "clerk",
        validationDataConfig={"validators": [{"s3Uri": "s3://lessons/validation.jsonl"}]},
        hyperParameters={"epochCount": "3", "batchSize": "8", "earlyStoppingPatience": "10"},
        jobTags=[{"key": "team", "value": "desk"}],
        customModelTags=[{"key": "kind", "value": "demo"}],
    )


def test_a_job_ends_with_a_model_and_says_what_it_did(job: Any) -> None:
    assert job["status"] == "Completed", job.get("failureMessage")
    assert {phase["status"] for phase in job["statusDetails"].values()} == {"Completed"}
    assert job["hyperParameters"]["epochCount"] == "3"
    assert job["hyperParameters"]["method"] == "lora"
    assert float(job["hyperParameters"]["learningRate"]) > 0
    assert job["validationMetrics"][0]["validationLoss"] > 0
    assert job["trainingMetrics"]["trainingLoss"] > 0


def test_metrics_and_weights_are_where_aws_and_its_notebooks_look(outcrop: Outcrop, job: Any) -> None:
    s3 = outcrop.client("s3")
    prefix = f"out/model-customization-job-{job['jobArn'][-12:]}/"

    def read(name: str) -> bytes:
        return bytes(s3.get_object(Bucket="lessons", Key=prefix + name)["Body"].read())

    steps = list(csv.DictReader(io.StringIO(read("training_artifacts/step_wise_training_metrics.csv").decode())))
    assert [int(row["step_number"]) for row in steps] == list(range(18))
    assert set(steps[0]) == {"step_number", "epoch_number", "training_loss", "perplexity"}
    place = "validation_artifacts/post_fine_tuning_validation/"
    assert read(place + "validation_metrics.csv") == read(place + "validation/validation_metrics.csv")
    losses = [
        float(row["validation_loss"])
        for row in csv.DictReader(io.StringIO(read(place + "validation_metrics.csv").decode()))
    ]
    assert min(losses) == pytest.approx(job["validationMetrics"][0]["validationLoss"], abs=1e-5)
    assert losses[-1] < losses[0]
    assert any("lora_A" in name for name in load_safetensors(read("weights/adapter_model.safetensors")))


def test_the_tuned_model_answers_by_every_name_and_not_as_the_base(outcrop: Outcrop, job: Any) -> None:
    bedrock = outcrop.client("bedrock")
    provisioned = bedrock.create_provisioned_model_throughput(
        modelUnits=1, provisionedModelName="clerk-pt", modelId="clerk"
    )["provisionedModelArn"]
    deployed = bedrock.create_custom_model_deployment(modelDeploymentName="clerk-od", modelArn=job["outputModelArn"])[
        "customModelDeploymentArn"
    ]
    outcrop.wait(lambda: bedrock.get_provisioned_model_throughput(provisionedModelId=provisioned), {"InService"})
    outcrop.wait(lambda: bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=deployed), {"Active"})
    text = next(tickets(9)).text
    told = {"system": [{"text": SYSTEM}], "inferenceConfig": {"maxTokens": 60}}
    names = (provisioned, "clerk-pt", deployed, "clerk-od", job["outputModelArn"], "clerk")
    answers = {outcrop.ask(name, text, **told) for name in names}
    assert len(answers) == 1
    asked = [ticket.text for ticket in islice(tickets(10), 8)]
    assert [outcrop.ask("clerk", one, **told) for one in asked] != [outcrop.ask(BASE, one, **told) for one in asked]

    with pytest.raises(ClientError, match="ConflictException.*in use by"):
        bedrock.delete_custom_model(modelIdentifier="clerk")
    with pytest.raises(ClientError, match="already a provisioned model"):
        bedrock.create_provisioned_model_throughput(modelUnits=1, provisionedModelName="clerk-pt", modelId="clerk")
    bedrock.update_provisioned_model_throughput(provisionedModelId=provisioned, desiredModelId=BASE)
    outcrop.wait(lambda: bedrock.get_provisioned_model_throughput(provisionedModelId=provisioned), {"InService"})
    assert outcrop.ask(provisioned, text, **told) == outcrop.ask(BASE, text, **told)
    bedrock.delete_provisioned_model_throughput(provisionedModelId=provisioned)
    bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=deployed)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        outcrop.ask(provisioned, text)


def test_a_commitment_cannot_be_deleted_inside_its_term(outcrop: Outcrop) -> None:
    bedrock = outcrop.client("bedrock")
    arn = bedrock.create_provisioned_model_throughput(
        modelUnits=1, provisionedModelName="bound", modelId=BASE, commitmentDuration="OneMonth"
    )["provisionedModelArn"]
    with pytest.raises(ClientError, match="committed"):
        bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)


def test_lists_filter_sort_and_page(outcrop: Outcrop, job: Any) -> None:
    bedrock = outcrop.client("bedrock")
    for name in ("list-a", "list-b", "list-c"):
        outcrop.tune(name, trainingDataConfig={"s3Uri": "s3://lessons/nowhere.jsonl"})
    pages = bedrock.get_paginator("list_model_customization_jobs").paginate(
        nameContains="list-", PaginationConfig={"PageSize": 2}
    )
    assert [entry["jobName"] for page in pages for entry in page["modelCustomizationJobSummaries"]] == [
        "list-c",
        "list-b",
        "list-a",
    ]
    up = bedrock.list_model_customization_jobs(
        nameContains="list-", sortBy="CreationTime", sortOrder="Ascending", statusEquals="Failed"
    )
    assert [entry["jobName"] for entry in up["modelCustomizationJobSummaries"]] == ["list-a", "list-b", "list-c"]
    models = bedrock.list_custom_models(nameContains="clerk")["modelSummaries"]
    assert [model["modelName"] for model in models] == ["clerk"]
    assert bedrock.list_foundation_models(byProvider="outcrop")["modelSummaries"][0]["modelId"] == BASE
    with pytest.raises(ClientError, match="nextToken is not one"):
        bedrock.list_custom_models(nextToken="abc")


def test_tags_are_kept_and_changed(outcrop: Outcrop, job: Any) -> None:
    bedrock = outcrop.client("bedrock")
    arn = job["outputModelArn"]
    bedrock.tag_resource(resourceARN=arn, tags=[{"key": "more", "value": "1"}])
    bedrock.untag_resource(resourceARN=arn, tagKeys=["kind"])
    assert bedrock.list_tags_for_resource(resourceARN=arn)["tags"] == [{"key": "more", "value": "1"}]
    assert bedrock.list_tags_for_resource(resourceARN=job["jobArn"])["tags"] == [{"key": "team", "value": "desk"}]


def test_a_tuned_model_is_tuned_further(outcrop: Outcrop, job: Any) -> None:
    again = outcrop.tune("clerk-2", baseModelIdentifier=job["outputModelArn"], hyperParameters=FEW)
    assert again["status"] == "Completed", again.get("failureMessage")
    assert again["baseModelArn"] == job["outputModelArn"]


def test_weights_from_s3_become_a_custom_model_that_answers_alike(outcrop: Outcrop, job: Any) -> None:
    bedrock = outcrop.client("bedrock")
    uri = f"s3://lessons/out/model-customization-job-{job['jobArn'][-12:]}/weights"
    arn = bedrock.create_custom_model(
        modelName="clerk-copy", modelSourceConfig={"s3DataSource": {"s3Uri": uri}}, roleArn=ROLE
    )["modelArn"]

    def status() -> Any:
        model = bedrock.get_custom_model(modelIdentifier=arn)
        return {**model, "status": model["modelStatus"]}

    assert outcrop.wait(status, {"Active", "Failed"})["status"] == "Active"
    assert outcrop.ask("clerk-copy", "the fan died") == outcrop.ask("clerk", "the fan died")
    bad = bedrock.create_custom_model(
        modelName="nothing", modelSourceConfig={"s3DataSource": {"s3Uri": "s3://lessons/none"}}, roleArn=ROLE
    )["modelArn"]
    arn = bad
    assert "nothing under this prefix" in outcrop.wait(status, {"Active", "Failed"})["failureMessage"]


def test_a_model_is_taken_along_with_its_card(outcrop: Outcrop, job: Any, tmp_path: Path) -> None:
    for folder, options in ((tmp_path / "whole", ["--dtype", "bfloat16"]), (tmp_path / "adapter", ["--adapter"])):
        subprocess.run(
            ["outcrop", "models", "export", "clerk", "--out", str(folder), *options], env=outcrop.environment, check=True,
            capture_output=True,
        )  # fmt: skip
        card = (folder / "README.md").read_text()
        assert "s3://lessons/train.jsonl" in card
        assert "vllm serve" in card
        assert "| epochCount |" in card
    assert (tmp_path / "whole/model.safetensors").is_file()
    assert (tmp_path / "whole/tokenizer.json").is_file()
    assert (tmp_path / "adapter/adapter_model.safetensors").is_file()


def test_full_training_and_continued_pre_training(outcrop: Outcrop, lessons: None) -> None:
    outcrop.put_lines(
        "s3://lessons/text.jsonl",
        [json.dumps({"input": f"The desk opens at {hour} on every day."}) for hour in range(8, 20)],
    )
    job = outcrop.tune(
        "reader", customizationType="CONTINUED_PRE_TRAINING", trainingDataConfig={"s3Uri": "s3://lessons/text.jsonl"},
        hyperParameters={"method": "full", "batchSize": "4", "epochCount": "1", "evalPercentage": "20"},
    )  # fmt: skip
    assert job["status"] == "Completed", job.get("failureMessage")
    assert job["validationMetrics"]
    assert outcrop.ask("reader", "Hello", inferenceConfig={"maxTokens": 5})


def test_a_stopped_job_keeps_its_model(outcrop: Outcrop, lessons: None) -> None:
    bedrock = outcrop.client("bedrock")
    arn = bedrock.create_model_customization_job(
        jobName="stopped", customModelName="stopped", roleArn=ROLE, baseModelIdentifier=BASE,
        trainingDataConfig={"s3Uri": "s3://lessons/train.jsonl"}, outputDataConfig={"s3Uri": "s3://lessons/out"},
        hyperParameters={"epochCount": "10", "batchSize": "4"},
    )["jobArn"]  # fmt: skip
    outcrop.wait(
        lambda: {
            "status": bedrock.get_model_customization_job(jobIdentifier=arn)["statusDetails"]["trainingDetails"][
                "status"
            ]
        },
        {"InProgress"},
    )
    time.sleep(4)
    bedrock.stop_model_customization_job(jobIdentifier=arn)
    job = outcrop.wait(lambda: bedrock.get_model_customization_job(jobIdentifier=arn), {"Stopped", "Completed"})
    assert job["status"] == "Stopped"
    assert outcrop.ask(job["outputModelArn"], "Hello", inferenceConfig={"maxTokens": 5})
    with pytest.raises(ClientError, match="ConflictException"):
        bedrock.stop_model_customization_job(jobIdentifier=arn)


def test_streams_say_what_the_whole_answer_says(outcrop: Outcrop) -> None:
    runtime = outcrop.client("bedrock-runtime")
    asked = {
        "modelId": BASE,
        "messages": [{"role": "user", "content": [{"text": "Anna: red\nTom: blue\n\nWhat is the color of Tom?"}]}],
    }
    whole = runtime.converse(**asked)
    events = list(runtime.converse_stream(**asked)["stream"])
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    assert text == whole["output"]["message"]["content"][0]["text"]
    assert [next(iter(event)) for event in events][-3:] == ["contentBlockStop", "messageStop", "metadata"]
    assert events[-1]["metadata"]["usage"] == whole["usage"]
    counted = runtime.count_tokens(modelId=BASE, input={"converse": {"messages": asked["messages"]}})
    assert counted["inputTokens"] == whole["usage"]["inputTokens"]


NATIVE = {
    "llama": ({"prompt": "Hello", "max_gen_len": 6}, lambda body: body["generation"]),
    "claude": ({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 6, "messages": [{"role": "user", "content": "Hello"}]},
               lambda body: body["content"][0]["text"]),
    "nova": ({"schemaVersion": "messages-v1", "messages": [{"role": "user", "content": [{"text": "Hello"}]}], "inferenceConfig": {"maxTokens": 6}},
             lambda body: body["output"]["message"]["content"][0]["text"]),
    "openai": ({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6}, lambda body: body["choices"][0]["message"]["content"]),
    "completion": ({"prompt": "Hello", "max_tokens": 6}, lambda body: body["choices"][0]["text"]),
}  # fmt: skip


def test_every_familys_native_body_gets_the_same_answer(outcrop: Outcrop) -> None:
    runtime = outcrop.client("bedrock-runtime")
    answers = set()
    for body, text_of in NATIVE.values():
        answer = runtime.invoke_model(modelId=BASE, body=json.dumps(body))
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        assert int(headers["x-amzn-bedrock-input-token-count"]) > 0
        assert int(headers["x-amzn-bedrock-output-token-count"]) > 0
        answers.add(text_of(json.loads(answer["body"].read())))
        chunks = [
            json.loads(event["chunk"]["bytes"])
            for event in runtime.invoke_model_with_response_stream(modelId=BASE, body=json.dumps(body))["body"]
        ]
        assert chunks[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] > 0
    assert len(answers) == 1


def test_a_stop_sequence_ends_the_answer_before_it(outcrop: Outcrop) -> None:
    runtime = outcrop.client("bedrock-runtime")
    asked = {"modelId": BASE, "messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
    whole = runtime.converse(**asked)["output"]["message"]["content"][0]["text"]
    middle = whole[len(whole) // 2 :][:3]
    cut = runtime.converse(**asked, inferenceConfig={"stopSequences": [middle]})
    assert cut["stopReason"] == "stop_sequence"
    assert cut["output"]["message"]["content"][0]["text"] == whole[: whole.index(middle)]


def test_a_seed_repeats_an_answer(outcrop: Outcrop) -> None:
    told = {"inferenceConfig": {"temperature": 1.0, "maxTokens": 20}, "additionalModelRequestFields": {"seed": 5}}
    assert len({outcrop.ask(BASE, "Tell me something", **told) for _ in range(3)}) == 1


def test_events_of_a_job_can_be_read(outcrop: Outcrop, job: Any) -> None:
    told = subprocess.run(
        ["outcrop", "jobs", "watch", "clerk"], env=outcrop.environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout  # fmt: skip
    assert "step 18/18" in told
    assert "validation loss" in told
    assert "Completed" in told


@pytest.mark.parametrize("status", ["killed", "ended"])
def test_what_was_done_is_there_after_a_restart(tmp_path: Path, status: str) -> None:
    server = start(tmp_path / "home")
    server.put_lines("s3://kept/data.jsonl", ["{}"])
    server.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")
    if status == "killed":
        server.process.kill()
        server.process.wait()
        server.process.stdout.close()  # type: ignore[union-attr]
    else:
        end(server)
    again = start(tmp_path / "home")
    assert again.client("s3").get_object(Bucket="kept", Key="data.jsonl")["Body"].read() == b"{}\n"
    assert again.client("iam").get_role(RoleName="r")["Role"]["RoleName"] == "r"
    assert again.keys == server.keys
    end(again)


def test_a_job_whose_worker_is_killed_is_taken_up_by_the_next(tmp_path: Path) -> None:
    server = start(tmp_path / "home")
    server.put_lines("s3://lessons/train.jsonl", [ticket.row for ticket in islice(tickets(3), 16)])
    bedrock = server.client("bedrock")
    arn = bedrock.create_model_customization_job(
        jobName="j", customModelName="m", roleArn=ROLE, baseModelIdentifier=BASE,
        trainingDataConfig={"s3Uri": "s3://lessons/train.jsonl"}, outputDataConfig={"s3Uri": "s3://lessons/out"}, hyperParameters=FEW,
    )["jobArn"]  # fmt: skip
    server.wait(
        lambda: {
            "status": bedrock.get_model_customization_job(jobIdentifier=arn)["statusDetails"]["trainingDetails"][
                "status"
            ]
        },
        {"InProgress"},
    )
    workers = subprocess.run(
        ["pgrep", "-P", str(server.process.pid), "-f", "outcrop worker"], capture_output=True, text=True, check=True
    )
    os.kill(int(workers.stdout.split()[0]), signal.SIGKILL)
    job = server.wait(lambda: bedrock.get_model_customization_job(jobIdentifier=arn), {"Completed", "Failed"})
    assert job["status"] == "Completed", job.get("failureMessage")
    end(server)


def test_errors_inside_a_stream_are_declared(outcrop: Outcrop) -> None:
    runtime = outcrop.client("bedrock-runtime")
    with pytest.raises((ClientError, EventStreamError), match="ValidationException"):
        list(
            runtime.converse_stream(modelId=BASE, messages=[{"role": "user", "content": [{"text": "long " * 20_000}]}])[
                "stream"
            ]
        )
