"""Tools and structured output, in Bedrock's dialect, Claude's and OpenAI's, on a model whose template takes tools.

Its weights are random, so it is made to call: that a tool must be called is Bedrock's toolChoice.
"""

import json
from typing import Any

import openai
import pytest
from botocore.exceptions import ClientError

from tests.conftest import Outcrop
from tests.journeys.test_import import bring, upload
from tests.models import TOOLS_TEMPLATE, make_llama

pytestmark = pytest.mark.slow
SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["city", "now"],
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "now": {"type": "boolean"}},
}  # fmt: skip
TOOLS = [{"toolSpec": {"name": "weather", "description": "outside", "inputSchema": {"json": SCHEMA}}}]
ASKED: list[Any] = [{"role": "user", "content": [{"text": "the cat"}]}]


@pytest.fixture(scope="module")
def model(outcrop: Outcrop, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_llama(tmp_path_factory.mktemp("tools"), template=TOOLS_TEMPLATE)
    job = bring(outcrop, "with-tools", upload(outcrop, "with-tools", folder))
    assert job["status"] == "Completed", job.get("failureMessage")
    return str(job["importedModelArn"])


def check(given: dict[str, Any]) -> None:
    assert given["city"] in ("Rome", "Oslo")
    assert isinstance(given["now"], bool)


def test_a_call_and_its_result_whole(outcrop: Outcrop, model: str) -> None:
    runtime = outcrop.client("bedrock-runtime")
    config = {"tools": TOOLS, "toolChoice": {"any": {}}}
    first = runtime.converse(modelId=model, messages=ASKED, toolConfig=config)
    assert first["stopReason"] == "tool_use"
    call = first["output"]["message"]["content"][0]["toolUse"]
    assert call["name"] == "weather"
    check(call["input"])
    result = {"toolUseId": call["toolUseId"], "content": [{"json": {"sky": "blue"}}], "status": "success"}
    turns = [*ASKED, first["output"]["message"], {"role": "user", "content": [{"toolResult": result}]}]
    second = runtime.converse(
        modelId=model, messages=turns, toolConfig={"tools": TOOLS}, inferenceConfig={"maxTokens": 5}
    )
    assert second["stopReason"] in ("max_tokens", "end_turn")
    assert second["usage"]["inputTokens"] > first["usage"]["inputTokens"]
    with pytest.raises(ClientError, match="asks for no such call"):
        runtime.converse(
            modelId=model, toolConfig=config,
            messages=[*ASKED, first["output"]["message"], {"role": "user", "content": [{"toolResult": {**result, "toolUseId": "x"}}]}],
        )  # fmt: skip
    with pytest.raises(ClientError, match="no toolResult for the call"):
        runtime.converse(
            modelId=model, toolConfig=config, messages=[*ASKED, first["output"]["message"], ASKED[0]],
        )  # fmt: skip


def test_a_call_streamed(outcrop: Outcrop, model: str) -> None:
    answer = outcrop.client("bedrock-runtime").converse_stream(
        modelId=model, messages=ASKED, toolConfig={"tools": TOOLS, "toolChoice": {"tool": {"name": "weather"}}}
    )
    events = list(answer["stream"])
    start = next(event["contentBlockStart"] for event in events if "contentBlockStart" in event)
    assert start["start"]["toolUse"]["name"] == "weather"
    pieces = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    check(json.loads("".join(piece["toolUse"]["input"] for piece in pieces)))
    assert next(event["messageStop"] for event in events if "messageStop" in event)["stopReason"] == "tool_use"


def test_what_cannot_be_is_refused(outcrop: Outcrop, model: str) -> None:
    runtime = outcrop.client("bedrock-runtime")
    for more, words in (
        ({"modelId": "outcrop.pebble-v1:0", "toolConfig": {"tools": TOOLS}}, "doesn't support tool use"),
        (
            {"toolConfig": {"tools": TOOLS, "toolChoice": {"tool": {"name": "other"}}}},
            "'other', which is not among the tools",
        ),
        ({"outputConfig": schema('{"type": "riddle"}')}, "schema cannot be followed"),
        ({"outputConfig": schema("not JSON")}, "schema cannot be followed"),
    ):
        with pytest.raises(ClientError, match=words) as refused:
            runtime.converse(**{"modelId": model, "messages": ASKED, **more})
        assert refused.value.response["Error"]["Code"] == "ValidationException"


def schema(text: str) -> dict[str, Any]:
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": text, "name": "place"}}}}


def test_an_answer_follows_its_schema_on_any_model(outcrop: Outcrop, model: str) -> None:
    runtime = outcrop.client("bedrock-runtime")
    for asked in (model, "outcrop.pebble-v1:0"):
        answer = runtime.converse(
            modelId=asked, messages=ASKED, outputConfig=schema(json.dumps(SCHEMA)), inferenceConfig={"temperature": 1.0}
        )
        check(json.loads(answer["output"]["message"]["content"][0]["text"]))
        assert answer["stopReason"] == "end_turn"


def test_claudes_and_openais_bodies_say_the_same(outcrop: Outcrop, model: str) -> None:
    body = {
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": [{"role": "user", "content": "the cat"}],
        "tools": [{"name": "weather", "input_schema": SCHEMA}], "tool_choice": {"type": "any"},
    }  # fmt: skip
    runtime = outcrop.client("bedrock-runtime")
    claude = json.loads(runtime.invoke_model(modelId=model, body=json.dumps(body))["body"].read())
    assert claude["stop_reason"] == "tool_use"
    check(claude["content"][0]["input"])
    with openai.OpenAI(base_url=f"{outcrop.endpoint}/v1", api_key=outcrop.keys.bearer) as client:
        function = {"name": "weather", "parameters": SCHEMA}
        asked: Any = {
            "model": model, "messages": [{"role": "user", "content": "the cat"}], "tool_choice": "required",
            "tools": [{"type": "function", "function": function}],
        }  # fmt: skip
        whole = client.chat.completions.create(**asked).choices[0]
        chunks = client.chat.completions.create(**asked, stream=True)
        streamed = [call for chunk in chunks for call in (chunk.choices[0].delta.tool_calls or [])]
        assert whole.finish_reason == "tool_calls"
        call: Any = (whole.message.tool_calls or [])[0]
        check(json.loads(call.function.arguments))
        check(json.loads("".join((piece.function and piece.function.arguments) or "" for piece in streamed)))
        one = client.chat.completions.create(**asked, parallel_tool_calls=False).choices[0]
        assert len(one.message.tool_calls or []) == 1
        with pytest.raises(openai.BadRequestError, match="needs tools"):
            client.chat.completions.create(**{**asked, "tools": []})
        turns = [
            *asked["messages"],
            whole.message.model_dump(),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        last = client.chat.completions.create(model=model, messages=turns, tools=asked["tools"], max_tokens=5)
        assert last.choices[0].message.content is not None


def test_tools_with_a_cache_point_may_be_left_uncalled(outcrop: Outcrop, model: str) -> None:
    config = {"tools": [*TOOLS, {"cachePoint": {"type": "default"}}], "toolChoice": {"auto": {}}}
    answer = outcrop.client("bedrock-runtime").converse(
        modelId=model, messages=ASKED, toolConfig=config, inferenceConfig={"maxTokens": 5}
    )
    assert answer["stopReason"] in ("max_tokens", "end_turn")
