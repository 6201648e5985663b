"""Evaluate a model: scores that are computed, and those of a judge, with intervals. Name a larger model as the judge."""

import json
import time

import boto3

model = judge = "outcrop.pebble-v1:0"
s3, bedrock = boto3.client("s3"), boto3.client("bedrock")

people = "Anna Tom Maria Peter Lena Omar Julia David Nina Ravi Clara Hugo".split()
cities = "Paris London Berlin Madrid Rome Vienna Oslo Dublin Lisbon Athens Prague Warsaw".split()
rows = [
    {"prompt": f"{name}: {city}\n\nWhat is the city of {name}?", "referenceResponse": city, "category": city[0]}
    for name in people
    for city in cities[:4]
]
s3.create_bucket(Bucket="evals")
s3.put_object(Bucket="evals", Key="cities.jsonl", Body="\n".join(map(json.dumps, rows)).encode())

job = bedrock.create_evaluation_job(
    jobName="cities",
    roleArn="arn:aws:iam::123456789012:role/any",
    applicationType="ModelEvaluation",
    evaluationConfig={
        "automated": {
            "datasetMetricConfigs": [
                {
                    "taskType": "QuestionAndAnswer",
                    "dataset": {"name": "cities", "datasetLocation": {"s3Uri": "s3://evals/cities.jsonl"}},
                    "metricNames": ["Builtin.Accuracy", "Outcrop.contains", "Builtin.Correctness"],
                }
            ],
            "evaluatorModelConfig": {"bedrockEvaluatorModels": [{"modelIdentifier": judge}]},
        }
    },
    inferenceConfig={
        "models": [
            {"bedrockModel": {"modelIdentifier": model, "inferenceParams": '{"inferenceConfig": {"maxTokens": 32}}'}}
        ]
    },
    outputDataConfig={"s3Uri": "s3://evals/out/"},
)["jobArn"]
while (state := bedrock.get_evaluation_job(jobIdentifier=job))["status"] == "InProgress":
    time.sleep(1)
print(state["status"], *state.get("failureMessages", ()))

for found in s3.list_objects_v2(Bucket="evals", Prefix="out/cities/")["Contents"]:
    body = s3.get_object(Bucket="evals", Key=found["Key"])["Body"].read()
    if found["Key"].endswith("_output.jsonl"):
        print(body.decode().splitlines()[0])
    if found["Key"].endswith("summary/cities.json"):
        for measure in json.loads(body)["measures"]:
            figure = measure["arms"][0]
            print(f"{measure['metric']:<22} {figure['mean']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]")
