"""Evaluation jobs through boto3 and the AWS CLI, in the shape of AWS's notebooks."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.conftest import ROLE, end, start
from tests.journeys.test_unkillable import environment_of, processes

BASE = "outcrop.pebble-v1:0"
DATA = Path(__file__).parents[3] / "shared/data"
ROWS = [
    {
        "prompt": f"{name}: {city}\n\nWhat is the city of {name}?",
        "referenceResponse": city,
        "category": "short" if len(city) < 6 else "long",
    }
    for name, city in zip(
        "Anna Tom Maria Peter Lena Omar Julia David".split(),
        "Paris London Berlin Madrid Rome Vienna Oslo Dublin".split(),
        strict=True,
    )
]
OVER = {"Completed", "Failed", "Stopped"}


def asked(name, metrics, task="QuestionAndAnswer", models=(BASE,), judge=None, custom=None, **more):
    automated = {
        "datasetMetricConfigs": [
            {
                "taskType": task,
                "dataset": {"name": "cities", "datasetLocation": {"s3Uri": "s3://evals/cities.jsonl"}},
                "metricNames": metrics,
            }
        ]
    }
    if judge:
        automated["evaluatorModelConfig"] = {"bedrockEvaluatorModels": [{"modelIdentifier": judge}]}
    if custom:
        automated["customMetricConfig"] = {
            "customMetrics": custom,
            "evaluatorModelConfig": {"bedrockEvaluatorModels": [{"modelIdentifier": judge or BASE}]},
        }
    params = json.dumps({"inferenceConfig": {"maxTokens": 24, "temperature": 0}})
    return {
        "jobName": name, "roleArn": ROLE, "evaluationConfig": {"automated": automated}, "outputDataConfig": {"s3Uri": "s3://evals/out/"},
        "inferenceConfig": {"models": [{"bedrockModel": {"modelIdentifier": model, "inferenceParams": params}} for model in models]}, **more,
    }  # fmt: skip


def run(outcrop, request):
    bedrock = outcrop.client("bedrock")
    arn = bedrock.create_evaluation_job(**request)["jobArn"]
    return outcrop.wait(lambda: bedrock.get_evaluation_job(jobIdentifier=arn), OVER)


def written(outcrop, job):
    """Every object that a job wrote, by its key after the job's folder."""
    s3 = outcrop.client("s3")
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket="evals", Prefix=f"out/{job['jobName']}/")["Contents"]]
    return {key.split("/", 3)[3]: s3.get_object(Bucket="evals", Key=key)["Body"].read() for key in keys}


def lines(data):
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
def rows(outcrop):
    outcrop.put_lines("s3://evals/cities.jsonl", [json.dumps(row) for row in ROWS])


@pytest.mark.slow
def test_a_computed_evaluation_stands_where_bedrock_writes_it(outcrop, rows) -> None:
    job = run(outcrop, asked("computed", ["Builtin.Accuracy", "Builtin.Robustness", "Outcrop.contains"]))
    assert (job["status"], job["jobType"], job["applicationType"]) == ("Completed", "Automated", "ModelEvaluation"), job
    files = written(outcrop, job)
    (name,) = [name for name in files if name.endswith("_output.jsonl")]
    assert name.startswith(f"models/{BASE}/taskTypes/QuestionAndAnswer/datasets/cities/")
    records = lines(files[name])
    assert [record["inputRecord"] for record in records] == ROWS
    for record in records:
        scores = {score["metricName"]: score["result"] for score in record["automatedEvaluationResult"]["scores"]}
        assert set(scores) == {"Builtin.Accuracy", "Builtin.Robustness", "Outcrop.contains"}
        (response,) = record["modelResponses"]
        assert response["modelIdentifier"] == BASE
        assert scores["Outcrop.contains"] == float(record["inputRecord"]["referenceResponse"] in response["response"])
        assert 0 <= scores["Builtin.Robustness"] <= 1
    summary = json.loads(files["summary/cities.json"])
    assert summary["rows"] == len(ROWS)
    assert summary["measures"][0]["arms"][0]["low"] < summary["measures"][0]["arms"][0]["high"]
    assert any("too few" in warning for warning in summary["warnings"])
    assert b"<html" in files["summary/cities.html"]


@pytest.mark.slow
def test_a_judge_rates_with_built_in_and_custom_metrics(outcrop, rows) -> None:
    definition = {
        "name": "brevity", "instructions": "How brief is {{prediction}} for {{prompt}}? The truth: {{ground_truth}}",
        "ratingScale": [{"definition": "short", "value": {"floatValue": 1.0}}, {"definition": "long", "value": {"floatValue": 0.0}}],
    }  # fmt: skip
    request = asked(
        "judged",
        ["Builtin.Correctness", "Builtin.Refusal", "brevity"],
        "General",
        judge=BASE,
        custom=[{"customMetricDefinition": definition}],
    )
    job = run(outcrop, request)
    assert job["status"] == "Completed", job
    files = written(outcrop, job)
    assert json.loads(files["custom_metrics/brevity.json"]) == {"customMetricDefinition": definition}
    (name,) = [name for name in files if name.endswith("_output.jsonl")]
    for record in lines(files[name]):
        scores = {score["metricName"]: score for score in record["automatedEvaluationResult"]["scores"]}
        assert scores["Builtin.Correctness"]["result"] in (0, 0.5, 1)
        assert scores["Builtin.Refusal"]["result"] in (0, 1)
        assert scores["brevity"]["result"] in (0, 1)
        (details,) = scores["brevity"]["evaluatorDetails"]
        assert details["modelIdentifier"] == BASE


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the shared data is not beside this checkout")
def test_responses_that_the_rows_bring_are_judged_without_asking_a_model(outcrop) -> None:
    given = (DATA / "aws/eval_llmaaj_byoi.jsonl").read_text(encoding="utf-8").splitlines()
    source = json.loads(given[0])["modelResponses"][0]["modelIdentifier"]
    outcrop.put_lines("s3://evals/cities.jsonl", given)
    request = asked("brought", ["Builtin.Correctness", "Outcrop.f1"], "General", judge=BASE)
    request["inferenceConfig"] = {"models": [{"precomputedInferenceSource": {"inferenceSourceIdentifier": source}}]}
    job = run(outcrop, request)
    assert job["status"] == "Completed", job
    files = written(outcrop, job)
    (name,) = [name for name in files if name.endswith("_output.jsonl")]
    records = lines(files[name])
    assert [record["modelResponses"] for record in records] == [json.loads(line)["modelResponses"] for line in given]


@pytest.mark.slow
def test_jobs_are_listed_by_the_cli_stopped_and_deleted(outcrop, rows) -> None:
    bedrock = outcrop.client("bedrock")
    job = run(outcrop, asked("listed", ["Builtin.Accuracy"]))
    told = subprocess.run(
        ["aws", "bedrock", "list-evaluation-jobs", "--name-contains", "listed"],
        env=outcrop.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (summary,) = json.loads(told.stdout)["jobSummaries"]
    assert (summary["jobArn"], summary["evaluationTaskTypes"], summary["modelIdentifiers"]) == (
        job["jobArn"],
        ["QuestionAndAnswer"],
        [BASE],
    )
    with pytest.raises(ClientError, match="ConflictException"):
        bedrock.stop_evaluation_job(jobIdentifier=job["jobArn"])
    nobody = f"{job['jobArn'][:-12]}abcdefghijkl"
    done = bedrock.batch_delete_evaluation_job(jobIdentifiers=[job["jobArn"], nobody])
    assert done["evaluationJobs"] == [{"jobIdentifier": job["jobArn"], "jobStatus": "Deleting"}]
    assert [(error["jobIdentifier"], error["code"]) for error in done["errors"]] == [
        (nobody, "ResourceNotFoundException")
    ]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        bedrock.get_evaluation_job(jobIdentifier=job["jobArn"])


REFUSED = [
    ({"metrics": ["Builtin.Toxicity"]}, "classifier of toxicity"),
    ({"metrics": ["Builtin.Accuracy"], "task": "Summarization"}, "BERTScore"),
    ({"metrics": ["Builtin.Correctness"]}, "needs a judge"),
    ({"metrics": ["Builtin.Perplexity"]}, "is not known"),
    ({"metrics": ["Outcrop.beauty"]}, "is not one of Outcrop's metrics"),
    ({"metrics": ["Builtin.Accuracy"], "models": ("nobody.there-v1:0",)}, "Could not resolve"),
    (
        {
            "metrics": ["m"],
            "custom": [{"customMetricDefinition": {"name": "m", "instructions": "{{prediction}} {{answer}}"}}],
        },
        "placeholder",
    ),
    (
        {"metrics": ["m"], "custom": [{"customMetricDefinition": {"name": "m", "instructions": "is it good?"}}]},
        "no {{prediction}}",
    ),
]


@pytest.mark.parametrize(("more", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_be_done_is_refused_in_words(outcrop, rows, more, said) -> None:
    with pytest.raises(ClientError) as refused:
        outcrop.client("bedrock").create_evaluation_job(**asked("refused", **more))
    assert said in refused.value.response["Error"]["Message"]


def test_rag_human_and_built_in_sets_are_refused_in_words(outcrop, rows) -> None:
    bedrock = outcrop.client("bedrock")
    builtin = asked("builtin", ["Builtin.Accuracy"])
    builtin["evaluationConfig"]["automated"]["datasetMetricConfigs"][0]["dataset"] = {"name": "Builtin.BoolQ"}
    with pytest.raises(ClientError, match="do not come with Outcrop"):
        bedrock.create_evaluation_job(**builtin)
    with pytest.raises(ClientError, match="knowledge bases"):
        bedrock.create_evaluation_job(**asked("rag", ["Builtin.Accuracy"], applicationType="RagEvaluation"))


@pytest.mark.slow
def test_a_metric_without_a_result_on_any_row_fails_the_job_after_all_is_written(outcrop) -> None:
    outcrop.put_lines("s3://evals/cities.jsonl", [json.dumps({"prompt": row["prompt"]}) for row in ROWS])
    job = run(outcrop, asked("unscored", ["Builtin.Accuracy"]))
    assert job["status"] == "Failed"
    assert "no referenceResponse" in job["failureMessages"][0]
    assert any(name.endswith("_output.jsonl") for name in written(outcrop, job))
    assert outcrop.client("bedrock").list_evaluation_jobs(nameContains="nobody")["jobSummaries"] == []


@pytest.mark.slow
def test_a_row_without_what_is_needed_fails_the_job_by_its_line(outcrop) -> None:
    outcrop.put_lines("s3://evals/cities.jsonl", [json.dumps(ROWS[0]), '{"referenceResponse": "x"}'])
    job = run(outcrop, asked("badrow", ["Builtin.Accuracy"]))
    assert job["status"] == "Failed"
    assert "line 2" in job["failureMessages"][0]


@pytest.mark.slow
def test_a_killed_worker_asks_nothing_twice_and_a_stopped_job_writes_what_it_has(tmp_path) -> None:
    own = start(tmp_path / "home")
    many = [
        {"prompt": f"{number}: {row['prompt']}", "referenceResponse": row["referenceResponse"]}
        for number in range(60)
        for row in ROWS
    ]
    own.put_lines("s3://evals/cities.jsonl", [json.dumps(row) for row in many])
    bedrock = own.client("bedrock")
    for name, act in (
        ("killed", kill_worker),
        ("stopped", lambda outcrop, arn: bedrock.stop_evaluation_job(jobIdentifier=arn)),
    ):
        arn = bedrock.create_evaluation_job(**asked(name, ["Builtin.Accuracy", "Builtin.Robustness"]))["jobArn"]
        run = own.home / "runs" / arn[-12:]
        until = time.monotonic() + 90
        while not any(file.read_bytes().count(b"\n") >= 100 for file in run.glob("0-0-*.answers")):
            assert time.monotonic() < until
            time.sleep(0.01)
        act(own, arn)
        job = own.wait(lambda arn=arn: bedrock.get_evaluation_job(jobIdentifier=arn), OVER)
        files = written(own, job)
        (output,) = [data for file, data in files.items() if file.endswith("_output.jsonl")]
        found = [record["inputRecord"]["prompt"] for record in lines(output)]
        if name == "killed":
            assert (job["status"], found) == ("Completed", [row["prompt"] for row in many])
        else:
            assert job["status"] == "Stopped"
            assert 0 < len(found) < len(many)
            assert len(set(found)) == len(found)
    end(own)


def kill_worker(outcrop, arn) -> None:
    (worker,) = (pid for pid in processes("outcrop worker") if str(outcrop.home) in environment_of(pid))
    os.kill(worker, signal.SIGKILL)


@pytest.mark.slow
def test_two_models_are_held_against_each_other_with_an_interval(outcrop) -> None:
    many = [
        {"prompt": f"{number}: {row['prompt']}", "referenceResponse": f"<{row['referenceResponse']}>"}
        for number in range(12)
        for row in ROWS
    ]
    outcrop.put_lines("s3://evals/cities.jsonl", [json.dumps(row) for row in many[:48]])
    outcrop.put_lines(
        "s3://lessons/train.jsonl",
        [json.dumps({"prompt": row["prompt"], "completion": row["referenceResponse"]}) for row in many[48:]],
    )
    assert outcrop.tune("pointed", hyperParameters={"epochCount": "8", "batchSize": "4"})["status"] == "Completed"
    job = run(outcrop, asked("paired", ["Outcrop.exact"], "Custom", models=(BASE, "pointed")))
    assert job["status"] == "Completed", job
    files = written(outcrop, job)
    assert sum(name.endswith("_output.jsonl") for name in files) == 2
    assert any(name.startswith("models/pointed/taskTypes/Custom/") for name in files)
    summary = json.loads(files["summary/cities.json"])
    (against,) = summary["measures"][0]["against"]
    assert against["verdict"] == "better"
    assert against["difference"]["low"] > 0
