"""A distillation's prompts file is judged as AWS's validator for it does, and takes two forms more."""

import json
from pathlib import Path
from typing import Any

import pytest

from outcrop.datasets.source import local_file
from outcrop.synthesis import Prompt, read_prompts

TEXT = [{"text": "Which sea?"}]


def row(*roles: str, content: Any = None, **more: Any) -> dict[str, Any]:
    messages = [{"role": role, "content": content if content is not None else TEXT} for role in roles]
    return {"schemaVersion": "bedrock-conversation-2024", "messages": messages, **more}


CASES = [
    (row("user"), True), (row("user", "assistant"), True), (row("user", system=[{"text": "Be brief."}]), True),
    (row("user", content=[{"text": "a" * 5000}]), True),
    (row(), False), (row("assistant"), False), (row("user", "user"), False), (row("assistant", "user"), False), (row("user", "assistant", "user"), False),
    (row("user", "assistant", "user", "assistant"), False), (row("system"), False), (row("tool"), False),
    (row("user", content=[]), False), (row("user", content=TEXT * 2), False), (row("user", content=[{"image": {"format": "png"}}]), False),
    (row("user", content=[{"text": 3}]), False), (row("user", content=[{}]), False), (row("user", content=[{"text": "a", "note": "b"}]), False),
    (row("user", content="Which sea?"), False),
    (row("user", system=[{"text": "a"}, {"text": "b"}]), False), (row("user", system=[]), False), (row("user", system="a"), False),
    (row("user", extra=1), False), ({**row("user"), "schemaVersion": "bedrock-conversion-2024"}, False), ({**row("user"), "schemaVersion": "1"}, False),
    ({"messages": row("user")["messages"]}, False), ({"schemaVersion": "bedrock-conversation-2024"}, False),
    ({"schemaVersion": "bedrock-conversation-2024", "messages": [{"role": "user"}]}, False), ([1, 2], False), ("text", False),
    ({"schemaVersion": "bedrock-conversation-2024", "messages": [{"role": "user", "content": TEXT, "name": "x"}]}, False),
    # beyond Bedrock
    ({"prompt": "Which sea?"}, True), ({"prompt": "Which sea?", "completion": "The North Sea."}, True), ({"prompt": " "}, False),
    ({"messages": [{"role": "user", "content": "Which sea?"}]}, True), ({"system": "a", "messages": [{"role": "user", "content": "b"}]}, True),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_prompt_is_accepted_or_rejected_as_at_aws(tmp_path: Path, case: int) -> None:
    given, is_right = CASES[case]
    (tmp_path / "prompts.jsonl").write_text(json.dumps(given) + "\n")
    (read,) = read_prompts(local_file(tmp_path / "prompts.jsonl"))
    assert isinstance(read, Prompt) is is_right, read


def test_golden_answers_and_system_prompts_come_along(tmp_path: Path) -> None:
    golden = row("user", "assistant", system=[{"text": "Be brief."}])
    (tmp_path / "prompts.jsonl").write_text(
        json.dumps(golden) + "\n" + json.dumps({"prompt": "a", "completion": "b"}) + "\n"
    )
    first, second = read_prompts(local_file(tmp_path / "prompts.jsonl"))
    assert isinstance(first, Prompt)
    assert isinstance(second, Prompt)
    assert (first.golden, first.asked.system, len(first.asked.messages)) == ("Which sea?", "Be brief.", 1)
    assert (second.golden, second.asked.messages[0].text) == ("b", "a")
