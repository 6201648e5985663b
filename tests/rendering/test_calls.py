"""Tools in a template, and calls in what a model has written."""

from pathlib import Path

import pytest

from outcrop.errors import Invalid
from outcrop.rendering import (
    Conversation,
    Message,
    Renderer,
    Tool,
    ToolCall,
    ToolResult,
    read_calls,
    words_before_calls,
)
from tests.models import TEMPLATE, TOOLS_TEMPLATE, make_tokenizer

WEATHER = Tool("weather", "What it is like outside", {"type": "object", "properties": {"city": {"type": "string"}}})
TALK = Conversation(
    (
        Message("user", "How is Rome?"),
        Message("assistant", "", calls=(ToolCall("c1", "weather", {"city": "Rome"}),)),
        Message("user", "", results=(ToolResult("c1", "sunny"),)),
    ),
    system="Be kind.",
    tools=(WEATHER,),
)


def renderer(folder: Path, template: str) -> Renderer:
    make_tokenizer(folder, template)
    return Renderer(folder)


def test_tools_calls_and_results_are_written_as_the_template_has_it(tmp_path: Path) -> None:
    made = renderer(tmp_path, TOOLS_TEMPLATE)
    assert made.takes_tools
    text = made.tokenizer.decode(made.prompt(TALK), skip_special_tokens=False)
    for piece in ("Be kind.", '"name": "weather"', "How is Rome?", '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}',
                  "weather: sunny"):  # fmt: skip
        assert piece in text
    assert text.endswith("<|assistant|>")


def test_a_template_without_a_place_for_tools_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="doesn't support tool use"):
        renderer(tmp_path, TEMPLATE).prompt(TALK)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>', [("weather", {"city": "Rome"})]),
        ('<tool_call>{"name": "weather", "arguments": {}}</tool_call> <tool_call>{"name": "weather"}', [("weather", {})] * 2),
        ('{"name": "weather", "parameters": {"city": "Oslo"}}', [("weather", {"city": "Oslo"})]),
        ('[{"name": "weather", "arguments": {"city": "Bonn"}}]', [("weather", {"city": "Bonn"})]),
        ('{"name": "other", "arguments": {}}', []),
        ('{"city": "Rome"}', []),
        ("<tool_call>not JSON</tool_call>", []),
        ("It is sunny.", []),
    ],
)  # fmt: skip
def test_calls_are_read_however_a_family_wraps_them(text: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert read_calls(text, {"weather"}) == found


@pytest.mark.parametrize(
    ("text", "is_beginning", "words"),
    [("Let me look. <tool_ca", False, 13), ("Let me look. <tool_call>{", False, 13), ("a < b", False, 5), ("a <", False, 2),
     ('{"name"', True, 0), ('{"name"', False, 7), ("  ", True, 0), ("Hello", True, 5)],
)  # fmt: skip
def test_words_are_let_go_as_soon_as_they_cannot_be_a_call(text: str, is_beginning: bool, words: int) -> None:
    assert words_before_calls(text, is_beginning) == words
