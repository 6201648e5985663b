"""Distill: a teacher answers prompts, a student learns the answers. Name a larger model as the teacher; the starter shows the way."""

import json
import time

import boto3

teacher = student = "outcrop.pebble-v1:0"
s3, bedrock = boto3.client("s3"), boto3.client("bedrock")

things = "laptop phone camera lamp heater router drone tablet scanner monitor printer keyboard".split()
troubles = ["does not turn on", "is broken", "has not arrived", "was charged twice", "makes noises", "is too loud",
            "lost its cover", "arrived late", "is the wrong one", "needs a new part"]  # fmt: skip
prompts = [
    {
        "schemaVersion": "bedrock-conversation-2024",
        "messages": [{"role": "user", "content": [{"text": f"The {thing} {trouble}. Which product is it?"}]}],
    }
    for thing in things
    for trouble in troubles
]
s3.create_bucket(Bucket="distill")
s3.put_object(Bucket="distill", Key="prompts.jsonl", Body="\n".join(map(json.dumps, prompts)).encode())

job = bedrock.create_model_customization_job(
    jobName="distill-products",
    customModelName="products",
    roleArn="arn:aws:iam::123456789012:role/any",
    baseModelIdentifier=student,
    customizationType="DISTILLATION",
    trainingDataConfig={"s3Uri": "s3://distill/prompts.jsonl"},
    outputDataConfig={"s3Uri": "s3://distill/out"},
    customizationConfig={
        "distillationConfig": {
            "teacherModelConfig": {"teacherModelIdentifier": teacher, "maxResponseLengthForInference": 100}
        }
    },
)["jobArn"]
while (state := bedrock.get_model_customization_job(jobIdentifier=job))["status"] == "InProgress":
    time.sleep(1)
print(state["status"], state.get("failureMessage", ""))

folder = f"out/model-customization-job-{job.rpartition('/')[2]}/"
print(s3.get_object(Bucket="distill", Key=f"{folder}prompt_insights/summary.json")["Body"].read().decode())
print(
    s3.get_object(Bucket="distill", Key=f"{folder}synthetic_data/sample.jsonl")["Body"].read().decode().splitlines()[0]
)
