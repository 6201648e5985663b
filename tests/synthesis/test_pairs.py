"""Pairs are taken when they hold: grounded, clear by themselves, well-formed, new."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from outcrop.errors import Invalid, ModelFailed
from outcrop.registry import Registry
from outcrop.rendering import Conversation
from outcrop.storage import Storage
from outcrop.synthesis import OpenAITeacher, Pair, Passage, Said, Templates, fault_of, read_pairs
from outcrop.workflows.synthesize import Options, passages_of, plan, sources_of, synthesize

PASSAGE = Passage(
    "d",
    "Harbour rules",
    "Opening",
    0,
    "The harbour opens at six in the morning. Visitors pay 12 dollars a night. To book a berth, call the harbour master's office.",
)


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        ("When does the harbour open?", "At six in the morning.", ""),
        ("How do visitors book a berth?", "By calling the harbour master's office.", ""),
        ("What do visitors pay a night?", "Visitors pay 12 dollars.", ""),
        ("What do visitors pay a night?", "Visitors pay 15 dollars.", "the answer has a number that the passage does not have"),
        ("When does the harbour open?", "Penguins run the submarine budget.", "the answer is not in the passage"),
        ("Who won the election in France?", "The harbour opens at six.", "the question is not about the passage"),
        ("What does the passage say of visitors?", "Visitors pay 12 dollars a night.", "it points to a passage that its reader will not see"),
        ("Harbour", "At six.", "the question is not well-formed"), ("When does the harbour open", "At six.", "the question is not well-formed"),
        ("When does the harbour open?", " ", "the answer is empty or too long"),
    ],
)  # fmt: skip
def test_a_pair_is_taken_or_its_fault_is_named(question: str, answer: str, fault: str) -> None:
    assert fault_of(Pair(question, answer), PASSAGE) == fault


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ('[{"question": "a?", "answer": "b"}, {"question": "c?", "answer": "d"}]', 2),
        ('Here you are:\n```json\n[{"question": "a?", "answer": "b"}]\n```', 1),
        ('{"question": "a?", "answer": "b"}\n{"question": "c?", "answer": "d"}', 2), ('[{"question": "a?", "answer": "b"}, {"question": "c', 1),
        ("I cannot do that.", 0), ("[]", 0), ('[{"q": "a"}]', 0),
    ],
)  # fmt: skip
def test_pairs_are_read_from_whatever_a_teacher_writes(said: str, count: int) -> None:
    assert len(read_pairs(said)) == count


def test_templates_may_be_replaced_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("{{ count }} about {{ passage }}")
    read = Templates.read(tmp_path)
    assert read.ask_for_pairs(PASSAGE, 2).messages[0].text.startswith("2 about The harbour")
    assert read.judge == Templates.read().judge
    (tmp_path / "pairs.txt").write_text("{{ passage.__class__.__mro__ }}")
    with pytest.raises(Invalid, match="cannot be filled"):
        Templates.read(tmp_path).ask_for_pairs(PASSAGE, 1)
    with pytest.raises(Invalid, match="no such folder"):
        Templates.read(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def stand_in() -> Iterator[OpenAITeacher]:
    process = subprocess.Popen([sys.executable, "-m", "outcrop.synthesis.stand_in"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield OpenAITeacher("stand-in", process.stdout.readline().strip())
    process.kill()
    process.wait()
    process.stdout.close()


class Counting:
    """A teacher that counts, and may die."""

    def __init__(self, inner: OpenAITeacher, dies_after: int = 10**9) -> None:
        self.inner, self.asked, self.dies_after = inner, 0, dies_after
        self.name = inner.name

    def answer(self, asked: Conversation, max_tokens: int, temperature: float = 0.0, seed: int | None = None) -> Said:
        self.asked += 1
        if self.asked > self.dies_after:
            raise ModelFailed("the teacher is gone")
        return self.inner.answer(asked, max_tokens, temperature, seed)


def documents(folder: Path) -> list[Path]:
    (folder / "docs").mkdir()
    nouns = "harbour bakery library station museum garden market school theatre office kitchen workshop".split()
    for noun in nouns:
        text = (
            f"# The {noun}\n\nThe {noun} keeper is the person who opens the {noun} gate every morning. The {noun} ledger is a record of what visitors of "
            f"the {noun} have paid. To enter the {noun} early, ask the keeper for a brass {noun} token."
        )
        (folder / "docs" / f"{noun}.md").write_text(text)
    return sorted((folder / "docs").iterdir())


def test_a_data_set_is_made_parted_by_document_and_taken_up_again(tmp_path: Path, stand_in: OpenAITeacher) -> None:
    documents(tmp_path)
    storage = Storage(tmp_path / "home")
    options = Options(shares={"train": 70.0, "validation": 0.0, "test": 30.0}, judges=True, system="Be brief.")
    passages = passages_of(sources_of([str(tmp_path / "docs")], storage), options)
    templates, registry = Templates.read(), Registry(storage)
    told = plan(passages, templates, options)
    assert (told.documents, told.passages, told.requests) == (12, 12, 12 * 4)

    dying = Counting(stand_in, dies_after=34)
    with pytest.raises(ModelFailed):
        synthesize(passages, tmp_path / "made", dying, templates, options, registry, [])
    again = Counting(stand_in)
    made = synthesize(passages, tmp_path / "made", again, templates, options, registry, [])
    assert 0 < again.asked < 48
    more = Counting(stand_in)
    assert synthesize(passages, tmp_path / "made", more, templates, options, registry, []) == made
    assert more.asked == 0

    assert made.pairs >= 20
    assert (
        made.reasons["the answer has a number that the passage does not have"] > 0
    )  # the stand-in invents one in seven
    assert set(made.parts) == {"train", "test"}
    rows = {
        part: [json.loads(line) for line in (tmp_path / f"made/{part}.jsonl").read_text().splitlines()]
        for part in made.parts
    }
    sources = {
        part: [json.loads(line) for line in (tmp_path / f"made/{part}.provenance.jsonl").read_text().splitlines()]
        for part in made.parts
    }
    for part, found in rows.items():
        assert [row["messages"][0]["content"] for row in found] == [source["question"] for source in sources[part]]
        for row, source in zip(found, sources[part], strict=True):
            assert row["system"] == "Be brief."
            text = Path(source["document"]).read_text()
            assert row["messages"][1]["content"] in text[source["begin"] :]
    assert not {one["document"] for one in sources["train"]} & {one["document"] for one in sources["test"]}
    from outcrop.storage import sha256_of

    kept = registry.find_data_set(sha256_of(tmp_path / "made/train.jsonl"))
    assert kept is not None
    assert kept.details["teacher"] == stand_in.name


def test_what_must_fail_fails_before_anything_is_asked(tmp_path: Path, stand_in: OpenAITeacher) -> None:
    documents(tmp_path)
    storage = Storage(tmp_path / "home")
    asked = Counting(stand_in)
    one = passages_of(sources_of([str(tmp_path / "docs/harbour.md")], storage), Options())
    for options, said in (
        (Options(), "cannot be parted into 3 parts"),
        (Options(form="prompt/completion", system="s", shares={"train": 100.0}), "has a system prompt"),
    ):
        with pytest.raises(Invalid, match=said):
            synthesize(one, tmp_path / "made", asked, Templates.read(), options, Registry(storage), [])
    assert asked.asked == 0


class Refusing(BaseHTTPRequestHandler):
    """A teacher's endpoint that finds every prompt too long."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(400)
        self.end_headers()
        self.wfile.write(b"too long")

    def log_message(self, *_: object) -> None: ...


def test_a_question_that_is_refused_is_no_end_of_the_teacher() -> None:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(Invalid, match="answers 400: too long"):
        OpenAITeacher("m", f"http://127.0.0.1:{server.server_address[1]}/v1").answer(Conversation.of("x"), 5)
    server.shutdown()
    server.server_close()


def test_a_teacher_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcrop.synthesis.teachers.FIRST_WAIT_S", 0.0)
    with pytest.raises(ModelFailed, match="does not answer"):
        OpenAITeacher("m", "http://127.0.0.1:9/v1").answer(Conversation.of("x"), 5)
    with pytest.raises(Invalid, match="must begin with http"):
        OpenAITeacher("m", "file:///etc/passwd")


def test_a_place_without_documents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(Invalid, match="there are no documents"):
        sources_of([str(tmp_path)], Storage(tmp_path / "home"))
