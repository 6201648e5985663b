"""LangChain's Converse model. It streams from models it does not know only when it is told to."""

import json

from langchain_aws import ChatBedrockConverse

QUESTION = "My vacuum is broken."
model = ChatBedrockConverse(model="outcrop.pebble-v1:0", disable_streaming=False)
streamed = [chunk.text for chunk in model.stream(QUESTION)]
print(json.dumps({"whole": model.invoke(QUESTION).text, "streamed": streamed}))
