"""LiteLLM. It reads AWS_BEDROCK_RUNTIME_ENDPOINT, which `outcrop env` sets, too."""

import json

import litellm

ASKED = {"model": "bedrock/outcrop.pebble-v1:0", "messages": [{"role": "user", "content": "My vacuum is broken."}]}
whole = litellm.completion(**ASKED).choices[0].message.content
streamed = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**ASKED, stream=True)]
print(json.dumps({"whole": whole, "streamed": streamed}))
