"""A pydantic-ai agent."""

import asyncio
import json

from pydantic_ai import Agent

QUESTION = "My vacuum is broken."


async def main() -> None:
    agent = Agent("bedrock:outcrop.pebble-v1:0")
    whole = (await agent.run(QUESTION)).output
    async with agent.run_stream(QUESTION) as answer:
        streamed = [text async for text in answer.stream_text(delta=True, debounce_by=None)]
    print(json.dumps({"whole": whole, "streamed": streamed}))


asyncio.run(main())
