"""The one renderer."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from outcrop.errors import Invalid
from outcrop.rendering.conversation import Conversation, Tool
from outcrop.rendering.decoder import Decoder
from outcrop.rendering.templates import DEFAULT_TEMPLATE, ChatTemplate, find_template

# Part of the hash: raise it when the same files would be rendered differently from before.
VERSION = "1"


@dataclass(frozen=True)
class Rendered:
    """One row for training: `tokens` and, of the same length, whether each token is part of an answer."""

    tokens: list[int]
    is_answer: list[bool]


class Renderer:
    """Writes conversations in one base model's tokens.

    The text is cut where answers begin and end, and each piece is tokenized by itself. So the tokens of a prompt
    at serving time are exactly the tokens that stood before the answer in training, even where a tokenizer would
    have merged characters across that border.

    Raises Invalid when the folder has no tokenizer.json or its template cannot write a plain conversation.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise Invalid(f"{folder} has no tokenizer.json; save the tokenizer in its fast form beside the weights")
        self.tokenizer = Tokenizer.from_file(str(path))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        config = _read_json(folder / "tokenizer_config.json")
        generation = _read_json(folder / "generation_config.json")
        model = _read_json(folder / "config.json")

        eos_ids = _token_ids(generation.get("eos_token_id", model.get("eos_token_id")))
        eos = _token_text(config.get("eos_token")) or next(map(self.tokenizer.id_to_token, eos_ids), None)
        eos_id: int | None = self.tokenizer.token_to_id(eos) if eos else None
        if eos is None or eos_id is None:
            raise Invalid(f"{folder}: no end-of-text token in tokenizer_config.json or generation_config.json")
        self.eos_id: int = eos_id

        source = find_template(folder, config)
        self.has_template = source is not None
        bos = _token_text(config.get("bos_token")) or ""
        if not self.has_template and not self._adds_bos(bos):
            bos = ""
        self._template = ChatTemplate(source or DEFAULT_TEMPLATE, bos, eos)
        bos_id = self.tokenizer.token_to_id(bos) if bos and self._adds_bos(bos) else None
        self._bos_ids = [] if bos_id is None else [bos_id]
        self._keeps_system = self._accepts_system()
        self.stop_tokens = frozenset({self.eos_id, *eos_ids, *self._turn_ends()})
        self._specials = {
            token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special
        }
        self.hash = hashlib.sha256(
            b"\0".join(
                [
                    VERSION.encode(),
                    path.read_bytes(),
                    self._template.source.encode(),
                    bos.encode(),
                    eos.encode(),
                ]
            )
        ).hexdigest()

    def training_row(self, content: Conversation | str) -> Rendered:
        """One row by itself. Raises Invalid when the template refuses the conversation."""
        (row,) = self.training_rows([content])
        if isinstance(row, Invalid):
            raise row
        return row

    def training_rows(self, contents: Sequence[Conversation | str]) -> list[Rendered | Invalid]:
        """Rows for training, many at once: the tokenizer then uses every processor. What a template refuses is an Invalid.

        Of a conversation the answers with their end-of-turn tokens are what is learned. Every answer ends in a stop token
        that is learned too: where the template writes none, the end-of-text token is added, because a model that never saw
        its turn end does not stop. Of plain text, for continued pre-training, every token is learned, the end-of-text
        token last.
        """
        rows: list[list[tuple[str, bool]] | Invalid] = []
        for content in contents:
            try:
                rows.append([(content, False)] if isinstance(content, str) else list(self._segments(content)))
            except Invalid as error:
                rows.append(error)
        texts = [text for row in rows if not isinstance(row, Invalid) for text, _ in row]
        encoded = iter(self.tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        return [
            row
            if isinstance(row, Invalid)
            else self._text_row(list(next(encoded).ids))
            if isinstance(content, str)
            else self._conversation_row([(list(next(encoded).ids), learned) for _, learned in row])
            for content, row in zip(contents, rows, strict=True)
        ]

    def _conversation_row(self, pieces: list[tuple[list[int], bool]]) -> Rendered:
        tokens: list[int] = []
        is_answer: list[bool] = []
        for piece, learned in pieces:
            count = 0
            if learned:
                ends = [index for index, token in enumerate(piece) if token in self.stop_tokens]
                if not ends:
                    piece.append(self.eos_id)
                count = ends[-1] + 1 if ends else len(piece)
            tokens += piece
            is_answer += [True] * count + [False] * (len(piece) - count)
        return Rendered(tokens, is_answer)

    def _text_row(self, ids: list[int]) -> Rendered:
        tokens = [*self._bos_ids, *ids, self.eos_id]
        return Rendered(tokens, [False, *[True] * (len(tokens) - 1)])

    def prompt(self, conversation: Conversation) -> list[int]:
        """The tokens after which the model's answer begins. The last turn must be the user's."""
        if not conversation.messages or conversation.messages[-1].role != "user":
            raise Invalid("the conversation must end with a user message")
        tokens: list[int] = []
        for text, _ in self._segments(conversation):
            tokens += self._encode(text)
        return tokens

    def raw_prompt(self, text: str) -> list[int]:
        """A prompt that the caller has written in the model's own form, or plain words, which become a user turn.

        Native bodies with a `prompt` carry either; what tells them apart is whether the text holds one of the
        tokenizer's special tokens. Models without a template take every prompt as it is.
        """
        if not self.has_template or any(special in text for special in self._specials):
            tokens = self._encode(text)
            return tokens if tokens[: len(self._bos_ids)] == self._bos_ids else [*self._bos_ids, *tokens]
        return self.prompt(Conversation.of(text))

    def count(self, text: str) -> int:
        """How many tokens a text has by itself."""
        return len(self._encode(text))

    def decoder(self) -> Decoder:
        """A decoder for one answer."""
        return Decoder(self.tokenizer)

    def text(self, tokens: list[int]) -> str:
        """A whole answer's text, special tokens left out."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def token_text(self, token: int) -> str:
        """A single token's text; bytes that are no whole character become a replacement character."""
        return str(self.tokenizer.decode([token], skip_special_tokens=False))

    def is_special(self, token: int) -> bool:
        """Whether a token is one that the tokenizer keeps for marks."""
        return self.tokenizer.id_to_token(token) in self._specials

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _segments(self, conversation: Conversation) -> Iterator[tuple[str, bool]]:
        """The rendered text in pieces, each with whether it is an answer (with whatever closes its turn).

        Templates that rewrite earlier turns (dropping their reasoning, say) leave those turns as context only.
        """
        turns, ends = self._as_template_input(conversation)
        is_open = conversation.messages[-1].role == "user"
        whole = self._render(turns, is_open, conversation.tools)
        written = 0
        for index, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            before = self._render(turns[: ends[index - 1]], True, conversation.tools)
            after = self._render(turns[: ends[index]], False, conversation.tools)
            if whole.startswith(after) and after.startswith(before):
                yield whole[written : len(before)], False
                yield after[len(before) :], True
                written = len(after)
            elif index + 1 == len(conversation.messages):
                raise Invalid("the chat template writes the last answer differently from the prompt before it")
        if written < len(whole):
            yield whole[written:], False

    def _as_template_input(self, conversation: Conversation) -> tuple[list[dict[str, Any]], list[int]]:
        """Turns as templates expect them, and for each message how many of them there are up to its end."""
        turns: list[dict[str, Any]] = []
        ends: list[int] = []
        names = {call.id: call.name for message in conversation.messages for call in message.calls}
        for message in conversation.messages:
            turns += [
                {"role": "tool", "tool_call_id": result.id, "name": names.get(result.id, ""), "content": result.text}
                for result in message.results
            ]
            if message.text or not message.results:
                turn: dict[str, Any] = {"role": message.role, "content": message.text}
                if message.calls:
                    turn["tool_calls"] = [
                        {
                            "id": call.id,
                            "type": "function",
                            "function": {"name": call.name, "arguments": call.arguments},
                        }
                        for call in message.calls
                    ]
                turns.append(turn)
            ends.append(len(turns))
        if conversation.system is None:
            return turns, ends
        if self._keeps_system:
            return [{"role": "system", "content": conversation.system}, *turns], [end + 1 for end in ends]
        # Gemma's template, for one, refuses the system role; its makers put the text before the first user turn.
        turns[0] = {"role": turns[0]["role"], "content": f"{conversation.system}\n\n{turns[0]['content']}"}
        return turns, ends

    def _render(self, turns: list[dict[str, Any]], open_turn: bool, tools: tuple[Tool, ...] = ()) -> str:
        if tools and not self.takes_tools:
            raise Invalid("This model doesn't support tool use: its chat template has no place for tools.")
        try:
            return self._template.render(turns, open_turn, _specifications(tools))
        except (TemplateError, TypeError) as error:
            raise Invalid(f"the model's chat template refuses this conversation: {error}") from None

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the template writes the tools that are offered."""
        tools = _specifications((Tool("snowman", "", {"type": "object"}),))
        try:
            return "snowman" in self._template.render([{"role": "user", "content": "a"}], True, tools)
        except (TemplateError, TypeError):
            return False

    def _accepts_system(self) -> bool:
        turns = [{"role": "system", "content": "\u2603"}, {"role": "user", "content": "a"}]
        try:
            return "\u2603" in self._template.render(turns, add_generation_prompt=True)
        except (TemplateError, TypeError):
            return False

    def _turn_ends(self) -> list[int]:
        """The first special token after an answer, as this template closes a turn; empty when it writes none."""
        *_, (answer, _) = self._segments(Conversation.of("a", "b"))
        closing = answer[answer.rfind("b") + 1 :]
        added = self.tokenizer.get_added_tokens_decoder()
        return [token for token in self._encode(closing) if token in added and added[token].special][:1]

    def _adds_bos(self, bos: str) -> bool:
        ids = self.tokenizer.encode("a", add_special_tokens=True).ids
        return bool(bos) and ids[:1] == [self.tokenizer.token_to_id(bos)]


def _specifications(tools: tuple[Tool, ...]) -> list[dict[str, Any]] | None:
    """Tools as templates expect them, which is OpenAI's way."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema},
        }
        for tool in tools
    ] or None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _token_text(token: Any) -> str | None:
    """Tokens are written as text or as {"content": text}."""
    return token.get("content") if isinstance(token, dict) else token


def _token_ids(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
