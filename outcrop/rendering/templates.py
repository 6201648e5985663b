"""Where a base model keeps its chat template, and how one is run safely."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from outcrop.errors import Invalid

# For base models that bring no template. Plain words, so that any tokenizer can write them; the turn ends with
# the tokenizer's own end-of-text token.
DEFAULT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }}\n\n"
    "{% elif message.role == 'user' %}User: {{ message.content }}\n"
    "{% else %}Assistant: {{ message.content }}{{ eos_token }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{{ ' ' }}{% endif %}"
)


def find_template(folder: Path, tokenizer_config: dict[str, Any]) -> str | None:
    """The chat template's source, or None when the model brings none.

    A separate file wins over the one inside tokenizer_config.json (AWS, custom chat templates). Of several named
    templates the one called "default" is taken.
    """
    plain = folder / "chat_template.jinja"
    if plain.is_file():
        return plain.read_text(encoding="utf-8")
    wrapped = folder / "chat_template.json"
    if wrapped.is_file():
        return str(json.loads(wrapped.read_text(encoding="utf-8"))["chat_template"])
    embedded = tokenizer_config.get("chat_template")
    if isinstance(embedded, list):
        named = {entry["name"]: entry["template"] for entry in embedded}
        embedded = named.get("default", next(iter(named.values()), None))
    return embedded


class ChatTemplate:
    """A template compiled once, in a sandbox: it can neither reach Python's internals nor change what it is given."""

    def __init__(self, source: str, bos_token: str, eos_token: str) -> None:
        self.source = source
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise Invalid(f"the chat template does not compile: {error}") from None
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def render(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool, tools: list[dict[str, Any]] | None = None
    ) -> str:
        """The conversation as the model's own text. Raises jinja2.TemplateError when the template refuses it."""
        offered: dict[str, Any] = {"tools": tools} if tools else {}
        return self._template.render(
            messages=messages, add_generation_prompt=add_generation_prompt, **offered, **self._tokens
        )


def _to_json(value: object, indent: int | None = None, **_: object) -> str:
    """JSON as transformers' templates expect it: no HTML escapes, characters kept."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
