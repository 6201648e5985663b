"""A Strands agent."""

import asyncio
import json

from strands import Agent

QUESTION = "My vacuum is broken."


def agent() -> Agent:
    return Agent(model="outcrop.pebble-v1:0", callback_handler=None)


async def streamed() -> list[str]:
    return [event["data"] async for event in agent().stream_async(QUESTION) if "data" in event]


print(json.dumps({"whole": str(agent()(QUESTION)).strip(), "streamed": asyncio.run(streamed())}))
