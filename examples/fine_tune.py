"""Fine-tune, and ask. An ordinary Bedrock script: nothing in it knows Outcrop but the base model's id."""

import json
import time

import boto3

s3, bedrock, runtime = (boto3.client(name) for name in ("s3", "bedrock", "bedrock-runtime"))

queues = {
    "repairs": ["The {} does not turn on.", "My {} is broken.", "The {} stopped working."],
    "shipping": ["Where is my {}?", "The {} has not arrived.", "The parcel with the {} is late."],
    "refunds": ["I was charged twice for the {}.", "Please refund the {}.", "I paid too much for the {}."],
}
things = "laptop phone camera lamp heater router drone tablet scanner monitor".split()
rows = [
    {"messages": [{"role": "user", "content": text.format(thing)}, {"role": "assistant", "content": queue}]}
    for thing in things for queue, texts in queues.items() for text in texts
]  # fmt: skip
s3.create_bucket(Bucket="desk")
s3.put_object(Bucket="desk", Key="train.jsonl", Body="\n".join(map(json.dumps, rows)).encode())

job = bedrock.create_model_customization_job(
    jobName="route-tickets",
    customModelName="router",
    roleArn="arn:aws:iam::123456789012:role/any",
    baseModelIdentifier="outcrop.pebble-v1:0",
    trainingDataConfig={"s3Uri": "s3://desk/train.jsonl"},
    outputDataConfig={"s3Uri": "s3://desk/out"},
    hyperParameters={"epochCount": "6", "batchSize": "8"},
)["jobArn"]
while (state := bedrock.get_model_customization_job(jobIdentifier=job))["status"] == "InProgress":
    time.sleep(1)
print(state["status"])

for model in ("outcrop.pebble-v1:0", "router"):
    for text in ("My vacuum is broken.", "The toaster has not arrived.", "Please refund the watch."):
        answer = runtime.converse(modelId=model, messages=[{"role": "user", "content": [{"text": text}]}])
        print(f"{model:>20}  {text:<30} {answer['output']['message']['content'][0]['text']}")
