"""Anthropic's Bedrock client. It reads ANTHROPIC_BEDROCK_BASE_URL, which `outcrop env` sets, too."""

import json

from anthropic import AnthropicBedrock

asked = {
    "model": "anthropic.claude-3-haiku-20240307-v1:0", "max_tokens": 64,
    "messages": [{"role": "user", "content": "My vacuum is broken."}],
}  # fmt: skip
with AnthropicBedrock() as client:
    whole = client.messages.create(**asked).content[0].text
    with client.messages.stream(**asked) as stream:
        streamed = list(stream.text_stream)
print(json.dumps({"whole": whole, "streamed": streamed}))
