"""`outcrop compare` as a user runs it: any arms, the same rows, kept answers, and what it warns of."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Outcrop

BASE = "outcrop.pebble-v1:0"
NAMES = "Anna Tom Maria Peter Lena Omar Julia David Nina Ravi Clara Hugo Emma Louis Sara Victor Alice Bruno Carla Dmitri".split()
CITIES = "Paris London Berlin Madrid Rome Vienna Oslo Dublin Lisbon Athens Prague Warsaw Cairo Lagos Nairobi Tokyo Osaka Seoul Delhi Lima".split()


def row(name, city, wanted):
    return {
        "prompt": f"{name}: {city}\n\nWhat is the city of {name}?",
        "referenceResponse": wanted,
        "first": name[0],
        "pair": city[0],
    }


@pytest.fixture
def files(tmp_path) -> Path:
    rows = [row(name, city, city) for name, city in zip(NAMES * 2, CITIES + CITIES[::-1], strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    shots = [row(f"{name}a", city, city) for name, city in zip(NAMES, CITIES, strict=True)]
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*rows[:3], *shots]))
    return tmp_path


def compare(
    outcrop: Outcrop, folder: Path, *arguments: str, data: str = "rows.jsonl", ok: bool = True, **environment: str
):
    command = [
        sys.executable,
        "-m",
        "outcrop",
        "compare",
        *arguments,
        "--data",
        str(folder / data),
        "--out",
        str(folder / "out"),
    ]
    done = subprocess.run(
        command, env={**outcrop.environment, **environment}, capture_output=True, text=True, cwd=folder
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return json.loads((folder / "out/comparison.json").read_text()) if ok else done.stdout + done.stderr


@pytest.mark.slow
def test_arms_are_asked_the_same_rows_and_every_figure_has_an_interval(outcrop, files) -> None:
    found = compare(outcrop, files, BASE, f"again={BASE}", "--shots", "0,2", "--shots-from", str(files / "shots.jsonl"), "--metric", "contains",
                    "--metric", "tokens-out", "--slice", "first", "--group", "pair", "--max-tokens", "24", "--price", f"{BASE}=1,2")  # fmt: skip
    assert found["arms"] == [BASE, f"{BASE} + 2 shots", "again", "again + 2 shots"]
    assert (found["rows"], found["judged_by"]) == (40, "contains")
    names = [measure["metric"] for measure in found["measures"]]
    assert names == ["contains", "tokens-out", "cost", "tokens-in", "latency-ms"]
    for measure in found["measures"]:
        for figure in measure["arms"]:
            assert figure["low"] <= figure["mean"] <= figure["high"]
    first, shown, again, _ = found["manifest"]["arms"]
    assert first["prompts"] == again["prompts"] != shown["prompts"]
    assert first["weights"] == again["weights"]
    same = found["measures"][0]["against"][1]
    assert (same["verdict"], same["p"], same["difference"]["mean"]) == ("too few groups", 1.0, 0.0)
    assert all(line > 3 for line in found["manifest"]["shots"]["lines"])  # rows of the evaluation are not shown
    assert found["groups"] == len({city[0] for city in CITIES})
    assert {one["key"] for one in found["slices"]} == {"first"}
    page = (files / "out/comparison.html").read_text()
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_examples_of_the_data_itself_are_asked_of_no_arm(outcrop, files) -> None:
    found = compare(outcrop, files, BASE, "--shots", "0,3", "--metric", "contains")
    assert found["rows"] == 37
    assert len(found["manifest"]["shots"]["lines"]) == 3
    assert any("3 rows of the data are shown" in warning for warning in found["warnings"])


@pytest.mark.slow
def test_what_was_answered_stays_and_only_the_rest_is_asked(outcrop, files) -> None:
    before = compare(outcrop, files, BASE, "--metric", "contains")
    answers = next((files / "out/answers").iterdir())
    whole = answers.read_bytes()
    kept = whole.splitlines(keepends=True)
    answers.write_bytes(b"".join(kept[:25]) + kept[25][:20])  # it was killed while it wrote
    after = compare(outcrop, files, BASE, "--metric", "contains")
    assert answers.read_bytes().splitlines(keepends=True)[:25] == kept[:25]
    assert len(answers.read_bytes().splitlines()) == 40
    assert after["measures"][0] == before["measures"][0]
    other = compare(outcrop, files, BASE, "--metric", "contains", "--max-tokens", "1")
    assert other["measures"][0]["arms"][0]["mean"] < before["measures"][0]["arms"][0]["mean"]


@pytest.mark.slow
def test_a_row_that_a_model_refuses_is_counted_and_is_no_zero(outcrop, files) -> None:
    with (files / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "long " * 6000, "referenceResponse": "x", "first": "x", "pair": "x"}) + "\n")
    found = compare(outcrop, files, BASE, "--metric", "contains")
    assert found["unanswered"] == [1]
    assert (found["measures"][0]["arms"][0]["counted"], found["measures"][0]["arms"][0]["failed"]) == (40, 1)


@pytest.mark.slow
def test_remote_arms_of_both_shapes_answer_as_the_local_one(outcrop, files) -> None:
    remote = (f"openai={BASE}@{outcrop.endpoint}/v1", f"bedrock={BASE}@{outcrop.endpoint}")
    found = compare(
        outcrop, files, BASE, *remote, "--metric", "contains", "--rows", "12", OUTCROP_TEACHER_KEY=outcrop.keys.bearer
    )
    local, openai, bedrock = found["measures"][0]["arms"]
    assert local["mean"] == openai["mean"] == bedrock["mean"]
    assert any("too few" in warning for warning in found["warnings"])
    assert "prompts" not in found["manifest"]["arms"][1]


@pytest.mark.slow
def test_a_comparison_on_rows_that_were_looked_at_before_says_so(outcrop, files) -> None:
    rows = [row(f"{name}o", city, city) for name, city in zip(NAMES * 2, CITIES[::-1] + CITIES, strict=True)]
    (files / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))

    def said(*arguments):
        return [
            warning
            for warning in compare(outcrop, files, *arguments, "--metric", "contains")["warnings"]
            if "before" in warning
        ]

    assert said(f"one={BASE}") == []
    assert said(f"another-name={BASE}") == []
    (files / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows[:30]))
    (warning,) = said(BASE, "--system", "Say the city.")
    assert "have judged 1 other arm before (one)" in warning


@pytest.mark.slow
def test_rows_that_a_model_was_trained_on_are_told(outcrop, files) -> None:
    rows = [json.loads(line) for line in (files / "rows.jsonl").read_text().splitlines()]
    trained = [json.dumps({"prompt": one["prompt"], "completion": one["referenceResponse"]}) for one in rows[:5]]
    others = [
        json.dumps({"prompt": f"{name}: {city}\n\nWhere is {name}?", "completion": city})
        for name in NAMES
        for city in CITIES[:2]
    ]
    outcrop.put_lines("s3://lessons/train.jsonl", trained + others)
    assert outcrop.tune("leaky", hyperParameters={"epochCount": "1", "batchSize": "16"})["status"] == "Completed"
    found = compare(outcrop, files, BASE, "leaky", "--metric", "contains")
    (said,) = [warning for warning in found["warnings"] if "leaky" in warning and "trained" in warning]
    assert "5 of the 40 rows word for word" in said
    assert "Lines 1, 2, 3, 4, 5" in said


REFUSED = [
    (("nobody.there-v1:0",), "Could not resolve"),
    ((BASE, "--metric", "beauty"), "is not known"),
    ((BASE, "--shots", "40"), "too few to show 40"),
    ((BASE, "--shots", "two"), "expected numbers"),
    ((BASE, BASE), "the same name"),
    ((BASE, "--slice", "nothing"), "no row has the key 'nothing'"),
    ((BASE, "--price", f"{BASE}=cheap"), "expected two numbers"),
    ((BASE, "--metric", "similarity"), "--embedder"),
    ((BASE, "--metric", "cost"), "needs prices"),
    ((BASE, "--price", "nobody=1,2"), "which is no arm"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_be_compared_is_refused_in_words(outcrop, files, arguments, said) -> None:
    assert said in " ".join(compare(outcrop, files, *arguments, ok=False).split())
