"""Read an answer as it is written."""

import boto3

runtime = boto3.client("bedrock-runtime")
question = "Anna lives in Paris. Tom works as a baker.\n\nWhere does Anna live?"
answer = runtime.converse_stream(
    modelId="outcrop.pebble-v1:0", messages=[{"role": "user", "content": [{"text": question}]}]
)
for event in answer["stream"]:
    if "contentBlockDelta" in event:
        print(event["contentBlockDelta"]["delta"]["text"], end="", flush=True)
    elif "metadata" in event:
        print("\n", event["metadata"]["usage"])
