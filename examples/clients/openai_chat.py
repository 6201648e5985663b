"""OpenAI's client, at the second door. `outcrop env --openai` sets its variables."""

import json

from openai import OpenAI

ASKED = {
    "model": "outcrop.pebble-v1:0", "temperature": 0,
    "messages": [{"role": "user", "content": "My vacuum is broken."}],
}  # fmt: skip
with OpenAI() as client:
    whole = client.chat.completions.create(**ASKED).choices[0].message.content
    streamed = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**ASKED, stream=True)]
print(json.dumps({"whole": whole, "streamed": streamed}))
