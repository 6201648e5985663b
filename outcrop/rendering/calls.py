"""Calls of tools in what a model has written: JSON objects with a name and arguments, however its family wraps them.

Qwen and Hermes write `<tool_call>{...}</tool_call>`, Mistral a list, Llama 3.1 the bare object with `parameters`.
"""

import json
import re
from typing import Any

WRAPPED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
OPENING = "<tool_call>"


def words_before_calls(text: str, is_beginning: bool) -> int:
    """How much of a text is words for certain and not a call; a bare object is one at the beginning of an answer only."""
    found = text.find(OPENING)
    if found >= 0:
        return found
    if is_beginning and text.lstrip()[:1] in ("", "{", "["):
        return 0
    ends = (len(text) - size for size in range(len(OPENING) - 1, 0, -1) if text.endswith(OPENING[:size]))
    return next(ends, len(text))


def read_calls(text: str, names: set[str]) -> list[tuple[str, dict[str, Any]]]:
    """(name, arguments) of every call in a text; empty when what is there are no calls of these tools."""
    pieces = WRAPPED.findall(text) or [text]
    found: list[tuple[str, dict[str, Any]]] = []
    for piece in pieces:
        try:
            value = json.loads(piece)
        except ValueError:
            return []
        for one in value if isinstance(value, list) else [value]:
            arguments = one.get("arguments", one.get("parameters", {})) if isinstance(one, dict) else None
            if not isinstance(arguments, dict) or one.get("name") not in names:
                return []
            found.append((one["name"], arguments))
    return found
