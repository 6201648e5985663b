"""LlamaIndex. It knows models by their ids: an alias gives Outcrop's one that it knows."""

import json

from llama_index.core.llms import ChatMessage
from llama_index.llms.bedrock_converse import BedrockConverse

model = BedrockConverse(model="anthropic.claude-3-haiku-20240307-v1:0", temperature=0)
asked = [ChatMessage(role="user", content="My vacuum is broken.")]
streamed = [chunk.delta or "" for chunk in model.stream_chat(asked)]
print(json.dumps({"whole": model.chat(asked).message.content, "streamed": streamed}))
