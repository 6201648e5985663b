"""Documents of every kind become text, and text becomes passages that lose nothing."""

import json
from pathlib import Path

import docx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcrop.datasets.source import local_file
from outcrop.errors import Invalid
from outcrop.synthesis.documents import Document, passages_of, read_documents


def pdf(text: str) -> bytes:
    """A one-page PDF, written by hand."""
    drawn = f"BT /F1 12 Tf 10 50 Td ({text}) Tj ET"
    bodies = [
        "<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 100]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(drawn)}>>stream\n{drawn}\nendstream", "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]  # fmt: skip
    whole, places = "%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(whole))
        whole += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    return f"{whole}xref\n0 6\n0000000000 65535 f \n{table}trailer<</Size 6/Root 1 0 R>>\nstartxref\n{len(whole)}\n%%EOF".encode()


def read(path: Path) -> list[Document]:
    return list(read_documents([local_file(path)]))


def test_a_pdf_a_word_file_and_a_page_become_text(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("The harbour opens at six."))
    assert "The harbour opens at six." in read(tmp_path / "a.pdf")[0].text
    word = docx.Document()
    word.add_heading("Harbour", 1)
    word.add_paragraph("It opens at six.")
    word.add_table(1, 2).rows[0].cells[1].text = "seven"
    word.save(str(tmp_path / "b.docx"))
    (document,) = read(tmp_path / "b.docx")
    assert document.title == "Harbour"
    assert "It opens at six." in document.text
    assert "seven" in document.text
    (tmp_path / "c.html").write_text(
        "<html><script>x()</script><nav>menu</nav><h2>Harbour</h2><p>It opens<br>at six.</p><ul><li>one</li></ul></html>"
    )
    (document,) = read(tmp_path / "c.html")
    assert document.title == "Harbour"
    assert "one" in document.text
    assert "x()" not in document.text
    assert "menu" not in document.text


def test_markdown_loses_its_front_matter_and_jsonl_holds_many(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\ntitle: x\n---\n# Harbour\n\nIt opens at six.\n")
    (document,) = read(tmp_path / "a.md")
    assert (document.title, document.text) == ("Harbour", "# Harbour\n\nIt opens at six.")
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"path": f"p{n}.md", "text": f"text {n}"}) + "\n" for n in range(3))
    )
    assert [one.uri.rpartition("#")[2] for one in read(tmp_path / "b.jsonl")] == ["p0.md", "p1.md", "p2.md"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [("a.pdf", b"no pdf", "no readable PDF"), ("a.docx", b"no word", "no readable DOCX"), ("a.jsonl", b'{"x": 1}\n', "line 1 is no document"), ("a.xls", b"", "'.xls' is not known")],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Invalid, match=said):
        read(tmp_path / name)


def test_passages_keep_to_headings_and_do_not_part_sentences() -> None:
    text = "# One\n\n" + "This is a sentence of the first part. " * 60 + "\n\n## Two\n\nShort.\n\nAnother paragraph."
    found = list(passages_of(Document("d", "One", text), size=400))
    assert {one.heading for one in found} == {"One", "Two"}
    assert all(one.text.endswith(".") for one in found)
    assert max(len(one.text) for one in found) < 800
    assert found[-1].text == "Short.\n\nAnother paragraph."


@given(st.text(alphabet="ab. \n#!?", max_size=600), st.integers(20, 200))
def test_passages_hold_every_word_once_and_in_order(text: str, size: int) -> None:
    document = Document("d", "", text)
    found = list(passages_of(document, size))
    for one in found:
        assert text[one.begin :].lstrip().startswith(one.text)
    from outcrop.synthesis.documents import HEADING

    assert " ".join(one.text for one in found).split() == HEADING.sub(" ", text).split()
