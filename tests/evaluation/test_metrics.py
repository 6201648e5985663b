"""The table of metrics, each by a case that a reader can check, and graders of a user's own."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from outcrop.datasets.source import local_file
from outcrop.errors import Invalid
from outcrop.evaluation import (
    METRICS,
    Case,
    Response,
    classify,
    cosines,
    fitting,
    grader,
    is_grader,
    label_scores,
    named,
    overlap,
    read_cases,
    tatqa,
    with_shots,
)
from outcrop.evaluation.scores import field_accuracy, label_of, number_of, same_number
from outcrop.rendering import Conversation


def case(reference, **row):
    return Case(1, Conversation.of("asked"), reference, row)


SCORED = [
    ("exact", "Paris ", "paris", {}, 1.0),
    ("exact", "Paris.", "paris", {}, 0.0),
    ("contains", "It is Paris.", "Paris", {}, 1.0),
    ("contains", "It is Parish.", "Paris", {}, 0.0),
    ("f1", "the red dog", "a red dog", {}, 2 / 3),
    ("json", "```json\n{}\n```", None, {}, 1.0),
    ("json", "{", None, {}, 0.0),
    ("json-exact", '{"b": 1, "a": 2}', '{"a": 2, "b": 1}', {}, 1.0),
    ("json-exact", "x", "plain", {}, None),
    ("fields", '{"a": 1, "b": {"c": 2}}', '{"a": 1, "b": {"c": 3}}', {}, 0.5),
    ("schema", '{"a": 1}', None, {"schema": {"type": "object", "required": ["a"]}}, 1.0),
    ("schema", '{"b": 1}', None, {"schema": {"type": "object", "required": ["a"]}}, 0.0),
    ("schema", '{"b": 1}', None, {}, None),
    ("number", "so it is 1,200 in all", "She pays 12 * 100 = 1200.\n#### 1,200", {}, 1.0),
    ("number", "#### 7", "#### 8", {}, 0.0),
    ("rouge1", "the cat sat", "the cat", {}, 0.8),
    ("rougeL", "the cat sat", "the cat sat", {}, 1.0),
    ("bleu", "the cat sat on the mat", "the cat sat on the mat", {}, 1.0),
    ("chrf", "abc", "abc", {}, 1.0),
    ("tatqa-em", "$1.5 million", None, {"answer_type": "span", "answer": ["1500"], "scale": "thousand"}, 1.0),
    ("tatqa-scale", "1.5 million", None, {"answer_type": "arithmetic", "answer": 1.5, "scale": "million"}, 1.0),
    ("tatqa-em", "red; blue", None, {"answer_type": "multi-span", "answer": ["blue", "red"], "scale": ""}, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "reference", "row", "score"), SCORED)
def test_a_metric_gives_what_it_says(name, answer, reference, row, score) -> None:
    found = METRICS[name].score(Response(answer), case(reference, **row))
    assert found == (None if score is None else pytest.approx(score))


@pytest.mark.parametrize("reference", ["a", "#### 3", '{"a": 1}'])
def test_every_metric_is_none_or_a_number_for_any_answer(reference) -> None:
    for metric in METRICS.values():
        for answer in ("", "{", "\x00", "####", "-", '{"a": NaN}', "9" * 400, "[" * 3000):
            score = metric.score(Response(answer), case(reference))
            assert score is None or 0 <= score <= 1, metric.name


def test_numbers_are_read_as_people_write_them() -> None:
    assert number_of("a total of $1,234.50 then") == 1234.5
    assert number_of("#### -3") == -3
    assert number_of("none") is None
    assert same_number("3.001", "3", 0.01) == 1.0
    assert same_number("0", "0") == 1.0


def test_a_tolerance_is_said_with_the_metric() -> None:
    (metric,) = named(["number:0.01"])
    assert metric.score(Response("about 101"), case("#### 100")) == 1.0
    assert metric.score(Response("about 103"), case("#### 100")) == 0.0
    for bad in ("number:", "number:x", "number:2"):
        with pytest.raises(Invalid, match="tolerance"):
            named([bad])


def test_nested_fields_count_one_by_one() -> None:
    assert field_accuracy('{"a": [1, 2]}', {"a": [1, 3]}) == 0.5
    assert field_accuracy("no", {"a": 1}) == 0.0
    assert field_accuracy("{}", {}) == 1.0


def test_a_label_is_read_from_a_sentence_but_not_guessed() -> None:
    labels = ["refund", "card lost", "card"]
    assert label_of("Refund.", labels) == "refund"
    assert label_of("The label is card lost", labels) == "card lost"
    assert label_of("refund or card", labels) is None
    assert label_of("cardboard", labels) is None


def test_macro_f1_is_the_mean_over_labels() -> None:
    wanted = ["a"] * 8 + ["b"] * 2
    found = classify(["a"] * 10, wanted)
    assert found.f1 == pytest.approx({"a": 16 / 18, "b": 0.0})
    assert found.macro_f1.mean == pytest.approx(8 / 18)
    assert found.macro_f1.low <= found.macro_f1.mean <= found.macro_f1.high
    assert found.confusion == {("a", "a"): 8, ("b", "a"): 2}
    assert label_scores([Response("b"), Response("", error="too long")], [case("b"), case("a")]) == [1.0, None]


def test_likeness_by_vectors_embeds_each_text_once() -> None:
    asked = []

    def embed(texts):
        asked.append(texts)
        return [[1.0, 0.0] if text == "x" else [1.0, 1.0] for text in texts]

    assert cosines(embed, [("x", "x"), ("x", "y")]) == pytest.approx([1.0, 0.5**0.5])
    assert asked == [["x", "y"]]


def test_metrics_are_chosen_by_what_references_look_like() -> None:
    assert fitting([case(label) for label in "aabbab"])[0] == "label"
    assert fitting([case('{"a": 1}')])[0] == "json-exact"
    assert fitting([case("so #### 3")])[0] == "number"
    assert fitting([case("some words"), case("others")])[0] == "exact"
    assert fitting([case(None)]) == []
    assert fitting([case("x", answer_type="span", answer=["x"], scale="")])[0] == "tatqa-em"


def test_a_python_function_grades(tmp_path) -> None:
    (tmp_path / "mine.py").write_text(
        "def short(answer, row):\n    return len(answer) < row['most']\n\ndef bad(answer, row):\n    return 'x'\n"
    )
    metric = grader(f"{tmp_path}/mine.py:short")
    assert metric.name == "mine.short"
    assert metric.score(Response("abc"), case(None, most=4)) == 1.0
    with pytest.raises(Invalid, match="fails on line 1: KeyError: 'most'"):
        metric.score(Response("abc"), case(None))
    with pytest.raises(Invalid, match="gives 'x' on line 1"):
        grader(f"{tmp_path}/mine.py:bad").score(Response("abc"), case(None))
    with pytest.raises(Invalid, match="no function 'gone'"):
        grader(f"{tmp_path}/mine.py:gone")
    with pytest.raises(Invalid, match="there is no file"):
        grader(f"{tmp_path}/nobody.py:short")


def test_an_address_grades() -> None:
    class Grades(BaseHTTPRequestHandler):
        def do_POST(self):
            given = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps({"score": float(given["answer"] == given["reference"])}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Grades)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = f"http://127.0.0.1:{server.server_port}/grade"
    assert is_grader(name)
    assert grader(name).score(Response("yes"), case("yes")) == 1.0
    server.shutdown()
    server.server_close()
    with pytest.raises(Invalid, match="does not answer on line 1"):
        grader(name).score(Response("yes"), case("yes"))


def test_rows_of_every_form_are_read_with_their_other_keys(tmp_path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "p", "referenceResponse": "r", "category": "c"},
        {"prompt": "p"},
        {
            "system": "s",
            "messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}],
            "slice": 3,
        },
        {"question": "q", "answer": "w"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cases = read_cases(local_file(file), system="be brief")
    assert [one.reference for one in cases] == ["r", None, "a", "w"]
    assert [one.prompt.system for one in cases] == ["be brief", "be brief", "s", "be brief"]
    assert cases[2].row["slice"] == 3
    shown = with_shots(cases[0], [cases[3]])
    assert [message.text for message in shown.prompt.messages] == ["q", "w", "p"]
    file.write_text('{"prompt": "p"}\n{"nothing": 1}\n')
    with pytest.raises(Invalid, match="line 2"):
        read_cases(local_file(file))


def test_rows_that_training_had_are_found_word_for_word_and_nearly() -> None:
    asked = [
        Case(n, Conversation.of(text), None)
        for n, text in enumerate(
            ["Where is my parcel with the new lamp for the kitchen?", "WHERE is it?", "Something else."]
        )
    ]
    trained = [
        Conversation.of("where is it?", "here"),
        Conversation.of("Where is my parcel with the old lamp for the kitchen?", "x"),
    ]
    found = overlap(asked, trained)
    assert (found.same, found.near) == ([1], [0])


def test_a_tatqa_answer_is_written_and_read_back() -> None:
    for answer, scale, kind in (
        (["a", "b"], "", "multi-span"),
        (12.5, "percent", "arithmetic"),
        (["$3.2"], "million", "span"),
        ("3", "", "count"),
    ):
        row = {"answer_type": kind, "answer": answer, "scale": scale}
        assert tatqa.score_text(tatqa.written(answer, scale), row) == tatqa.Score(1.0, 1.0, 1.0)


def test_the_reference_is_what_is_called_so_and_a_rows_system_prompt_is_asked_with(tmp_path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"system": "s", "prompt": "p", "referenceResponse": "gold", "response": "other", "answer": ["list"]},
        {"system": "s", "prompt": "p"},
        {"prompt": "p", "completion": "c", "category": "k"},
        {"prompt": "p", "target": "t"},
        {"system": "s", "question": "q", "answer": "w"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cases = read_cases(local_file(file))
    assert [one.reference for one in cases] == ["gold", None, "c", "t", "w"]
    assert [one.prompt.system for one in cases] == ["s", "s", None, None, "s"]


def test_labels_that_differ_in_case_or_space_are_one() -> None:
    rows = [case("billing"), case("Billing "), case("refund")]
    assert label_scores([Response("billing"), Response("billing."), Response("Refund")], rows) == [1.0, 1.0, 1.0]
    assert set(classify(["billing", "billing", "refund"], ["billing", "Billing ", "refund"]).f1.values()) == {1.0}


def test_what_is_no_number_is_no_score(tmp_path) -> None:
    (tmp_path / "mine.py").write_text(
        "def nan(answer, row):\n    return float('nan')\n\ndef fails(answer, row):\n    assert False, 'no'\n"
        "\ndef numpy(answer, row):\n    import numpy\n    return numpy.bool_(True)\n"
    )
    with pytest.raises(Invalid, match="finite number"):
        grader(f"{tmp_path}/mine.py:nan").score(Response("x"), case(None))
    with pytest.raises(Invalid, match="AssertionError: no"):
        grader(f"{tmp_path}/mine.py:fails").score(Response("x"), case(None))
    assert grader(f"{tmp_path}/mine.py:numpy").score(Response("x"), case(None)) == 1.0
    (tmp_path / "broken.py").write_text("raise OSError('gone')\n")
    with pytest.raises(Invalid, match="cannot be loaded: OSError"):
        grader(f"{tmp_path}/broken.py:f")


def test_numbers_with_hyphens_exponents_and_the_true_minus() -> None:
    assert number_of("in 2019-2020") == 2020
    assert number_of("it is -5") == -5
    assert number_of("it is \u22125") == -5
    assert number_of("1.5e3") == 1500
    assert same_number("1", "no number") is None
    assert METRICS["json-exact"].score(Response('{"a": 1}'), case('{"a": true}')) == 0.0
    assert METRICS["contains"].score(Response("hello."), case("")) == 0.0


@pytest.mark.parametrize("schema", [{"pattern": "("}, {"properties": []}, {"type": 5}, {"$ref": "#/nowhere"}])
def test_a_schema_that_is_none_is_refused_in_words(schema) -> None:
    with pytest.raises(Invalid, match="not a JSON schema"):
        METRICS["schema"].score(Response('{"a": "x"}'), case(None, schema=schema))
