import json
from pathlib import Path

import pytest

from outcrop.errors import Invalid
from outcrop.rendering import Conversation, Renderer
from tests.models import TEMPLATE, make_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tokenizer(tmp_path)
    return tmp_path


def learned_text(renderer: Renderer, conversation: Conversation) -> str:
    row = renderer.training_row(conversation)
    learned = [token for token, is_answer in zip(row.tokens, row.is_answer, strict=True) if is_answer]
    return str(renderer.tokenizer.decode(learned, skip_special_tokens=False))


@pytest.mark.pain(2)
def test_what_is_learned_is_every_answer_with_its_end(folder: Path) -> None:
    talk = Conversation.of("the cat", "sat on", "the dog", "ran", system="be brief")
    assert learned_text(Renderer(folder), talk) == "sat on<|end|>ran<|end|>"


def test_the_prompt_when_serving_is_the_row_up_to_the_answer_when_training(folder: Path) -> None:
    renderer = Renderer(folder)
    row = renderer.training_row(Conversation.of("the cat", "sat", "and?", "ran away", system="s"))
    for asked in (Conversation.of("the cat", system="s"), Conversation.of("the cat", "sat", "and?", system="s")):
        prompt = renderer.prompt(asked)
        assert row.tokens[: len(prompt)] == prompt
        assert row.is_answer[len(prompt)]
        assert not row.is_answer[len(prompt) - 1]


@pytest.mark.pain(3)
def test_the_stop_token_is_learned_even_when_the_template_writes_none(tmp_path: Path) -> None:
    make_tokenizer(
        tmp_path,
        template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    )
    renderer = Renderer(tmp_path)
    row = renderer.training_row(Conversation.of("a", "b"))
    assert row.tokens[-1] == renderer.eos_id
    assert row.is_answer[-1]


def test_a_template_that_refuses_the_system_role_gets_it_before_the_first_turn(tmp_path: Path) -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    make_tokenizer(tmp_path, template=strict)
    renderer = Renderer(tmp_path)
    text = renderer.tokenizer.decode(renderer.prompt(Conversation.of("hi", system="sys")), skip_special_tokens=False)
    assert "<|user|>sys\n\nhi<|end|>" in text


def test_a_separate_template_file_wins(folder: Path) -> None:
    before = Renderer(folder).hash
    (folder / "chat_template.jinja").write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    assert Renderer(folder).hash != before
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(
        json.dumps({"chat_template": "{% for m in messages %}({{ m.content }}){% endfor %}"})
    )
    renderer = Renderer(folder)
    assert "(hi)" in renderer.tokenizer.decode(renderer.prompt(Conversation.of("hi")))


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, template="{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(Invalid, match="chat template"):
        Renderer(tmp_path)


def test_a_raw_prompt_with_special_tokens_is_taken_as_it_is(folder: Path) -> None:
    renderer = Renderer(folder)
    written = "<|bos|><|user|>the cat<|end|>\n<|assistant|>"
    assert renderer.raw_prompt(written) == renderer.prompt(Conversation.of("the cat"))
    assert renderer.raw_prompt("the cat") == renderer.prompt(Conversation.of("the cat"))


def test_characters_of_several_tokens_come_out_whole(folder: Path) -> None:
    renderer = Renderer(folder)
    text = "ünï 漢字 🙂 end"
    decoder = renderer.decoder()
    pieces = [decoder.push(token) for token in renderer.tokenizer.encode(text).ids]
    assert "".join(pieces) + decoder.flush() == text
    assert all("\ufffd" not in piece for piece in pieces)


def test_plain_text_is_learned_whole_with_its_end(folder: Path) -> None:
    renderer = Renderer(folder)
    row = renderer.training_row("the cat sat")
    assert row.tokens[-1] == renderer.eos_id
    assert all(row.is_answer[1:])


def test_a_folder_without_a_tokenizer_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"no tokenizer\.json"):
        Renderer(tmp_path)
