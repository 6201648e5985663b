"""The cycle: calls are logged, harvested into a data set, learned from; and a model says what made it, and can be made again."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outcrop.demo.tickets import tickets
from tests.conftest import Outcrop, end, start

pytestmark = pytest.mark.slow
BASE = "outcrop.pebble-v1:0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcrop]:
    made = start(tmp_path_factory.mktemp("harvest") / "home", OUTCROP_LOG_DELIVERY_S="0.3")
    made.client("s3").create_bucket(Bucket="calls")
    made.client("s3").create_bucket(Bucket="lessons")
    made.client("bedrock").put_model_invocation_logging_configuration(
        loggingConfig={"s3Config": {"bucketName": "calls"}}
    )
    yield made
    end(made)


def outcrop(server: Outcrop, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "outcrop", *arguments],
        env={**server.environment, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def asked(server: Outcrop) -> dict[str, str]:
    """What was asked, and what was answered whole."""
    runtime = server.client("bedrock-runtime")
    answered = {}
    texts = [one.text for one, _ in zip(tickets(9), range(30), strict=False)]
    for number, text in enumerate([*texts, texts[0]]):
        answer = runtime.converse(
            modelId=BASE, messages=[{"role": "user", "content": [{"text": text}]}], inferenceConfig={"maxTokens": 40, "temperature": 0.0},
            requestMetadata={"team": "maps" if number != 3 else "other"},
        )  # fmt: skip
        if answer["stopReason"] == "end_turn" and number != 3:
            answered[text] = answer["output"]["message"]["content"][0]["text"]
    deadline = time.monotonic() + 20
    while list((server.home / "journal").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answered


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_logs_become_a_data_set_whose_rows_know_their_request(
    server: Outcrop, asked: dict[str, str], tmp_path: Path
) -> None:
    target = tmp_path / "next.jsonl"
    said = outcrop(
        server, "data", "harvest", "s3://calls/AWSLogs", "--out", str(target), "--metadata", "team=maps", "--no-near"
    )
    rows = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in lines(target)}
    assert rows == asked
    assert "the same prompt comes again later" in said
    sources = lines(tmp_path / "next.jsonl.provenance.jsonl")
    assert len(sources) == len(rows)
    for source in sources:
        assert source["place"].startswith("s3://calls/AWSLogs/")
        assert len(source["requestId"]) == 36


def test_a_person_corrects_and_takes_out(server: Outcrop, asked: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    harvest = ("data", "harvest", "s3://calls/AWSLogs", "--out", str(target), "--metadata", "team=maps", "--no-near")
    outcrop(server, *harvest)
    first, second = lines(tmp_path / "a.jsonl.provenance.jsonl")[:2]
    corrections = tmp_path / "corrections.jsonl"
    corrections.write_text(
        "".join(
            json.dumps(one) + "\n"
            for one in (
                {"requestId": first["requestId"], "answer": "corrected"},
                {"requestId": second["requestId"], "answer": None},
            )
        )
    )
    outcrop(server, *harvest, "--corrections", str(corrections))
    rows = lines(target)
    assert rows[0]["messages"][1]["content"] == "corrected"
    assert len(rows) == len(asked) - 1
    assert lines(tmp_path / "a.jsonl.provenance.jsonl")[0]["answeredBy"] == "a person"


def test_a_teacher_answers_anew_and_the_model_tells_its_whole_story(
    server: Outcrop, asked: dict[str, str], tmp_path: Path
) -> None:
    outcrop(server, "data", "harvest", "s3://calls/AWSLogs", "--out", "s3://lessons/train.jsonl", "--metadata", "team=maps", "--teacher", BASE,
            "--max-tokens", "200", "--to", "bedrock-conversation-2024", "--no-near")  # fmt: skip
    job = server.tune("harvested", hyperParameters={"epochCount": "2", "evalPercentage": "10"})
    assert job["status"] == "Completed", job
    told = outcrop(server, "lineage", "harvested", "--rows", "2")
    for part in (
        "harvested",
        "training data s3://lessons/train.jsonl",
        "unchanged",
        "harvest",
        "s3://calls/AWSLogs",
        BASE,
        "epochCount 2",
        "requestId",
    ):
        assert part in told, told
    tree = json.loads(outcrop(server, "lineage", "harvested", "--json", "--html", str(tmp_path / "lineage.html")))
    assert {node["kind"] for node in tree["sources"]} == {"settings", "base", "data"}
    assert "<svg" in (tmp_path / "lineage.html").read_text()

    assert outcrop(server, "lineage", "harvested", "--rebuild").count("the same bytes") >= 2

    body = server.client("s3").get_object(Bucket="lessons", Key="train.jsonl")["Body"].read()
    server.client("s3").put_object(Bucket="lessons", Key="train.jsonl", Body=body + b"\n")
    assert "changed" in outcrop(server, "lineage", "harvested")
    outcrop(server, "lineage", "harvested", "--rebuild", code=1)


def test_a_second_harvest_with_a_teacher_asks_only_what_is_new_and_mixes_nothing_up(
    server: Outcrop, asked: dict[str, str], tmp_path: Path
) -> None:
    target = tmp_path / "again.jsonl"
    harvest = (
        "data",
        "harvest",
        "s3://calls/AWSLogs",
        "--out",
        str(target),
        "--teacher",
        BASE,
        "--max-tokens",
        "60",
        "--no-near",
    )
    outcrop(server, *harvest, "--metadata", "team=other")
    outcrop(server, *harvest)
    for row in lines(target):
        question, answer = (turn["content"] for turn in row["messages"])
        assert answer == server.ask(BASE, question, inferenceConfig={"maxTokens": 60, "temperature": 0})
    keys = [line["key"] for line in lines(tmp_path / "again.jsonl.answers.jsonl")]
    assert len(keys) == len(set(keys))


def test_nothing_left_is_said_with_the_reasons(server: Outcrop, asked: dict[str, str], tmp_path: Path) -> None:
    outcrop(
        server,
        "data",
        "harvest",
        "s3://calls/AWSLogs",
        "--out",
        str(tmp_path / "x.jsonl"),
        "--metadata",
        "team=nobody",
        code=1,
    )
    assert not (tmp_path / "x.jsonl").exists()
