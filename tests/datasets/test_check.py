import json
from pathlib import Path

import pytest

from outcrop import datasets
from outcrop.datasets.formats import PLAIN_TEXT, SUPERVISED
from outcrop.datasets.prepare import windows
from outcrop.datasets.report import contents
from outcrop.datasets.source import Source
from outcrop.errors import Invalid
from outcrop.rendering import Conversation, Rendered, Renderer
from tests.models import make_tokenizer

GOOD = json.dumps({"prompt": "a", "completion": "b"})
CHAT = json.dumps(
    {"system": "s", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
)
NOVA = json.dumps(
    {
        "schemaVersion": "bedrock-conversation-2024",
        "system": [{"text": "s"}],
        "messages": [{"role": "user", "content": [{"text": "q"}]}, {"role": "assistant", "content": [{"text": "a"}]}],
    }
)


def check(
    tmp_path: Path, *lines: str | bytes, fewest: int = 1, most: int = 1000, allowed: tuple = SUPERVISED
) -> datasets.Report:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    return datasets.check(
        Source("s3://b/rows.jsonl", path, path.stat().st_size), allowed, fewest=fewest, most=most, most_bytes=10**9
    )


@pytest.mark.parametrize("row", [GOOD, CHAT, NOVA])
def test_each_of_bedrocks_formats_is_read(tmp_path: Path, row: str) -> None:
    assert check(tmp_path, row, row, "").rows == 2


def nova(**changes: object) -> str:
    return json.dumps({**json.loads(NOVA), **changes})


def chat(*roles: str, content: str = "x") -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role in roles]})


@pytest.mark.parametrize(
    ("first", "bad", "message"),
    [
        (GOOD, '{"prompt": "hm"}', "line 2: completion is missing"),
        (GOOD, '{"prompt": "hm", "completion": 3}', "line 2: completion expected `str`, got `int`"),
        (GOOD, '{"prompt": "hm", "completion": " "}', "line 2: completion is empty"),
        (GOOD, '{"prompt": "hm", "completion": "x",}', r"line 2, column \d+: is not JSON"),
        (GOOD, b'{"prompt": "\xff", "completion": "x"}', "line 2"),
        (GOOD, "[1, 2]", "line 2"),
        (GOOD, CHAT, r"line 2: is in the form system \+ messages, but the file began as prompt/completion"),
        (CHAT, chat("user"), "line 2: messages has 1 messages"),
        (CHAT, chat("assistant", "user"), "line 2: messages.0.role is 'assistant'; it must be 'user'"),
        (CHAT, chat("user", "assistant", "user"), "line 2: messages.2.role is 'user'; the last message must be the assistant's"),
        (CHAT, chat("user", "assistant", content="x\nHuman: y"), "line 2: messages.0.content holds the reserved string"),
        (CHAT, chat("user", "assistant")[:-1] + ', "extra": 1}', "line 2: extra is not a known key"),
        (NOVA, nova(schemaVersion="bedrock-conversion-2024"), "the spelling 'conversion' is a slip"),
        (NOVA, nova(system=[{"text": "a"}, {"text": "b"}]), "line 2: system has 2 parts"),
        (NOVA, nova(messages=[{"role": "user", "content": [{"image": {}}]}, {"role": "assistant", "content": [{"text": "a"}]}]),
         "line 2: messages.0.content.0.image cannot be learned"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_with_its_field_and_remedy(tmp_path: Path, first: str, bad: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        check(tmp_path, first, bad, first)


def test_all_problems_are_told_at_once_and_fit_the_failure_message(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        check(tmp_path, GOOD, *['{"prompt": "hm"}'] * 500)
    message = caught.value.message
    assert message.startswith("s3://b/rows.jsonl: 500 problems in 501 rows.")
    assert "line 3: completion is missing" in message
    assert "more." in message
    assert len(message) <= 2048


def test_a_reserved_word_without_its_colon_is_allowed(tmp_path: Path) -> None:
    assert check(tmp_path, chat("user", "assistant", content="x\nHuman y")).rows == 1


def test_an_empty_file_and_too_few_and_too_many_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="the file is empty"):
        check(tmp_path)
    with pytest.raises(Invalid, match="there is 1 row; at least 8 are needed"):
        check(tmp_path, GOOD, fewest=8)
    with pytest.raises(Invalid, match="there are 3 rows; at most 2 are allowed"):
        check(tmp_path, GOOD, GOOD, GOOD, most=2)


def test_a_byte_order_mark_and_windows_line_ends_are_no_problem(tmp_path: Path) -> None:
    assert check(tmp_path, b"\xef\xbb\xbf" + GOOD.encode() + b"\r", GOOD + "\r").rows == 2


def test_a_line_without_end_is_refused_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcrop.datasets.source.MOST_LINE_BYTES", 1000)
    monkeypatch.setattr("outcrop.datasets.scan.MOST_LINE_BYTES", 1000)
    with pytest.raises(Invalid, match="line 2: has more than 1,000 bytes"):
        check(tmp_path, GOOD, "x" * 5000, GOOD)


def test_plain_text_lines_are_read(tmp_path: Path) -> None:
    assert check(tmp_path, '{"input": "some text"}', allowed=PLAIN_TEXT).rows == 1
    with pytest.raises(Invalid, match="line 1: has the keys prompt, completion"):
        check(tmp_path, GOOD, allowed=PLAIN_TEXT)


@pytest.mark.pain(1)
def test_a_row_that_does_not_fit_is_refused_and_never_cut(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    report = check(tmp_path, GOOD, json.dumps({"prompt": "long " * 100, "completion": "b"}))
    with pytest.raises(Invalid, match=r"line 2: has \d+ tokens; at most 50 fit"):
        datasets.render(report, Renderer(tmp_path), most_tokens=50)


def test_rows_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    renderer = Renderer(tmp_path)
    rendered = [renderer.training_row(Conversation.of("the cat", answer)) for answer in ("sat", "ran away", "x")]
    datasets.Rows.of(rendered).write(tmp_path / "rows")
    again = datasets.Rows.read(tmp_path / "rows")
    assert [list(tokens) for tokens, _ in again] == [row.tokens for row in rendered]
    assert [list(mask) for _, mask in again] == [row.is_answer for row in rendered]


def test_a_split_is_seeded_and_loses_nothing(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    renderer = Renderer(tmp_path)
    rows = datasets.Rows.of(renderer.training_row(Conversation.of(f"q {number}", "a")) for number in range(40))
    train, aside = datasets.split(rows, 20, seed=3)
    assert (len(train), len(aside)) == (32, 8)

    def both(*parts: datasets.Rows) -> list[tuple[int, ...]]:
        return sorted(tuple(tokens) for part in parts for tokens, _ in part)

    assert both(train, aside) == both(rows)
    assert both(datasets.split(rows, 20, seed=3)[1]) == both(aside)


@pytest.mark.parametrize("length", [1, 2, 9, 10, 11, 19, 20, 100])
def test_a_long_text_is_learned_whole_in_rows_that_fit(length: int) -> None:
    row = Rendered(list(range(length)), [False, *[True] * (length - 1)])
    made = list(windows(row, 10))
    assert max(len(one.tokens) for one in made) <= 10
    learned = [token for one in made for token, yes in zip(one.tokens, one.is_answer, strict=True) if yes]
    assert learned == list(range(1, length))
    assert not any(one.is_answer[0] for one in made)


def text_report(tmp_path: Path, text: bytes) -> datasets.Report:
    path = tmp_path / "rows.txt"
    path.write_bytes(text)
    return datasets.check(
        Source("s3://b/rows.txt", path, path.stat().st_size), PLAIN_TEXT, fewest=1, most=1000, most_bytes=10**9
    )


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (b"one\n\ntwo\n", [(1, "one\n\ntwo\n")]),
        (b"\xef\xbb\xbfone\n<|endoftext|>\ntwo\nlines", [(1, "one\n"), (3, "two\nlines")]),
        (b"<|endoftext|>\n \n<|endoftext|>\r\nlast<|endoftext|>\n", [(4, "last<|endoftext|>\n")]),
    ],
)
def test_a_plain_text_is_parted_into_documents(tmp_path: Path, text: bytes, documents: list) -> None:
    assert list(contents(text_report(tmp_path, text))) == documents


def test_a_document_beyond_the_limit_is_refused_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcrop.datasets.source.MOST_LINE_BYTES", 50)
    monkeypatch.setattr("outcrop.datasets.scan.MOST_LINE_BYTES", 50)
    with pytest.raises(Invalid, match=r"line 3: has more than 50 bytes; part the document by lines of <\|endoftext\|>"):
        text_report(tmp_path, b"short\n<|endoftext|>\n" + b"words and words\n" * 10)
