"""Continue a base model's pre-training on plain text, with a part of it set aside to stop in time."""

import json
import time

import boto3

s3, bedrock = boto3.client("s3"), boto3.client("bedrock")
s3.create_bucket(Bucket="library")
lines = [
    {"input": f"Shelf {number} of the library holds the maps of region {number * 7 % 50}."} for number in range(50)
]
s3.put_object(Bucket="library", Key="text.jsonl", Body="\n".join(map(json.dumps, lines)).encode())
job = bedrock.create_model_customization_job(
    jobName="read-the-library",
    customModelName="librarian",
    customizationType="CONTINUED_PRE_TRAINING",
    roleArn="arn:aws:iam::123456789012:role/any",
    baseModelIdentifier="outcrop.pebble-v1:0",
    trainingDataConfig={"s3Uri": "s3://library/text.jsonl"},
    outputDataConfig={"s3Uri": "s3://library/out"},
    hyperParameters={"batchSize": "8", "method": "full", "evalPercentage": "20"},
)["jobArn"]
while (state := bedrock.get_model_customization_job(jobIdentifier=job))["status"] == "InProgress":
    time.sleep(1)
print(state["status"], state["validationMetrics"])
