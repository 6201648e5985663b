"""Logged calls of every family as what was asked and answered."""

import pytest

from outcrop.logs import Logged, read_filter
from outcrop.synthesis import Exchange, Prompt, exchange_of, read_exchanges, same_model
from outcrop.synthesis.prompts import examples_of, with_examples

CONVERSE = {"messages": [{"role": "user", "content": [{"text": "Which sea?"}]}], "system": [{"text": "Be brief."}]}
SAID = {"output": {"message": {"role": "assistant", "content": [{"text": "The North Sea."}]}}, "stopReason": "end_turn"}
CLAUDE = {
    "anthropic_version": "bedrock-2023-05-31",
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "Which sea?"}],
}
LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "Which sea?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)


def logged(given: object, said: object, model: str = "m", error: str = "", number: int = 0, **metadata: str) -> Logged:
    return Logged(
        f"s3://b/k:{number}",
        f"r{number}",
        "InvokeModel",
        model,
        metadata,
        input_body=given,
        output_body=said,
        error=error,
    )


@pytest.mark.parametrize(
    ("given", "said", "system"),
    [
        (CONVERSE, SAID, "Be brief."),
        (CLAUDE, {"type": "message", "content": [{"type": "text", "text": "The North Sea."}], "stop_reason": "end_turn"}, "Be brief."),
        (CLAUDE, [{"type": "message_start", "message": {}}, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "The North"}},
                  {"type": "content_block_delta", "delta": {"type": "text_delta", "text": " Sea."}}, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, "[DONE]"], "Be brief."),
        (CONVERSE, [{"contentBlockDelta": {"delta": {"text": "The North Sea."}}}, {"messageStop": {"stopReason": "end_turn"}}], "Be brief."),
        ({"prompt": LLAMA}, {"generation": "The North Sea.", "stop_reason": "stop"}, "Be brief."),
        ({"prompt": LLAMA}, [{"generation": "The North"}, {"generation": " Sea."}, {"generation": "", "stop_reason": "stop"}], "Be brief."),
        ({"prompt": "\n\nHuman: Which sea?\n\nAssistant:"}, {"completion": "The North Sea.", "stop_reason": "stop_sequence"}, None),
        ({"prompt": "Which sea?", "max_gen_len": 10}, {"generation": "The North Sea."}, None),
        ({"inputText": "Which sea?"}, {"results": [{"outputText": "The North Sea.", "completionReason": "FINISH"}]}, None),
        ({"inputText": "Which sea?"}, [{"outputText": "The North Sea.", "completionReason": "FINISH"}], None),
        ({"model": "m", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which sea?"}]},
         {"choices": [{"message": {"role": "assistant", "content": "The North Sea."}, "finish_reason": "stop"}]}, "Be brief."),
    ],
)  # fmt: skip
def test_every_familys_bodies_are_understood(given: object, said: object, system: str | None) -> None:
    read = exchange_of(logged(given, said))
    assert isinstance(read, Exchange), read
    assert [(message.role, message.text) for message in read.asked.messages] == [("user", "Which sea?")]
    assert read.asked.system == system
    assert read.answer == "The North Sea."
    assert not read.is_cut


@pytest.mark.parametrize(
    "said",
    [{**SAID, "stopReason": "max_tokens"}, {"generation": "x", "stop_reason": "length"}, {"choices": [{"text": "x", "finish_reason": "length"}]},
     [{"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}], [{"messageStop": {"stopReason": "max_tokens"}}]],
)  # fmt: skip
def test_an_answer_that_was_cut_is_known(said: object) -> None:
    read = exchange_of(logged(CONVERSE, said))
    assert isinstance(read, Exchange)
    assert read.is_cut


@pytest.mark.parametrize(
    ("given", "said", "reason"),
    [
        (None, SAID, "no input body"), ({"messages": [{"role": "user", "content": [{"image": {}}]}]}, SAID, "holds image"),
        ({"messages": [{"role": "user", "content": [{"toolResult": {}}]}]}, SAID, "uses tools"), ({"prompt": "[INST] x [/INST]"}, SAID, "own template"),
        ({"texts": ["x"]}, SAID, "asks for no text"), ({"messages": [{"role": "assistant", "content": "x"}]}, SAID, "alternate"),
        ({"messages": [{"role": "user", "content": " "}]}, SAID, "prompt is empty"), ({"messages": [{"content": 3}]}, SAID, "no known shape"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_says_why(given: object, said: object, reason: str) -> None:
    read = exchange_of(logged(given, said))
    assert isinstance(read, str)
    assert reason in read


def test_a_streamed_call_of_a_tool_is_no_answer() -> None:
    said = [
        {"type": "content_block_delta", "delta": {"text": "I'll look it up."}},
        {"type": "content_block_start", "content_block": {"type": "tool_use"}},
    ]
    assert exchange_of(logged(CLAUDE, said)) == "the call uses tools"
    streamed = [{"contentBlockStart": {"start": {"toolUse": {"name": "x"}}}}]
    assert exchange_of(logged(CONVERSE, streamed)) == "the call uses tools"


def test_what_stands_before_the_first_human_is_the_system_prompt() -> None:
    read = exchange_of(logged({"prompt": "You are a pirate.\n\nHuman: hi\n\nAssistant:"}, {"completion": "Ahoy"}))
    assert isinstance(read, Exchange)
    assert (read.asked.system, read.asked.messages[0].text) == ("You are a pirate.", "hi")


def test_a_refused_call_is_none() -> None:
    assert (
        exchange_of(logged(CONVERSE, None, error="ThrottlingException")) == "the call was refused (ThrottlingException)"
    )


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (
            "meta.llama3-1-70b-instruct-v1:0",
            "arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-1-70b-instruct-v1:0",
            True,
        ),
        ("us.meta.llama3-1-70b-instruct-v1:0", "meta.llama3-1-70b-instruct-v1:0:128k", True),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-pro-v1:0",
            "amazon.nova-pro-v1:0",
            True,
        ),
        ("amazon.nova-pro-v1:0", "amazon.nova-lite-v1:0", False),
        ("arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/abc", "abc", True),
    ],
)
def test_a_model_is_known_by_any_of_its_names(one: str, other: str, is_same: bool) -> None:
    assert same_model(one, other) is is_same


def test_calls_are_filtered_and_told_apart() -> None:
    turns = {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]}
    calls = [
        logged(CONVERSE, SAID, number=1, team="maps"), logged(CONVERSE, SAID, number=2, team="maps"), logged(CONVERSE, SAID, number=3, team="chat"),
        logged({"prompt": "b"}, {"generation": ""}, number=4, team="maps"), logged({"prompt": "c"}, {"generation": "d"}, "other", number=5, team="maps"),
        logged(turns, SAID, number=6, team="maps"), "s3://b/k:7: is not a record",
    ]  # fmt: skip
    wanted = read_filter({"equals": {"team": "maps"}})
    read = list(read_exchanges(calls, wanted, "m"))
    assert [one.request_id for one in read if isinstance(one, Prompt)] == ["r1"]
    reasons = [one.reason for one in read if not isinstance(one, Prompt)]
    assert [
        "same prompt" in reasons[0],
        "empty" in reasons[1],
        "answered by other" in reasons[2],
        "3 messages" in reasons[3],
        "not a record" in reasons[4],
    ] == [True] * 5
    asked_again = [one for one in read_exchanges(calls, wanted, takes_turns=True) if isinstance(one, Prompt)]
    assert [(one.request_id, one.logged) for one in asked_again] == [
        ("r1", None),
        ("r4", None),
        ("r5", None),
        ("r6", None),
    ]


def test_golden_pairs_are_shown_to_the_teacher_but_never_a_prompts_own() -> None:
    from outcrop.rendering import Conversation

    prompts = [Prompt(n, Conversation.of(f"question {n}"), "", golden="x" * n or None) for n in range(1, 9)]
    examples = examples_of(prompts, 1000)
    assert [one.number for one in examples] == [1, 2, 3]
    assert [message.text for message in with_examples(prompts[1], examples).messages] == [
        "question 1",
        "x",
        "question 3",
        "xxx",
        "question 2",
    ]
    assert examples_of(prompts, 5) == []
