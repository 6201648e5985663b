"""The check of data by itself: over HTTP, from the command line, and as the first phase of a job."""

import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from outcrop.demo.tickets import tickets
from tests.conftest import Outcrop
from tests.workflows.test_sweep import signed

PLANTED = [
    '{"messages": [{"role": "user", "content": "x"}]}', "not json",
    json.dumps({"messages": [{"role": "user", "content": "My card is 4111 1111 1111 1111."}, {"role": "assistant", "content": "noted"}]}),
]  # fmt: skip


def rows(seed: int, count: int) -> list[str]:
    return [ticket.row for ticket in islice(tickets(seed), count)]


def outcrop_data(server: Outcrop, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "outcrop", "data", *arguments], env={**server.environment, "COLUMNS": "200"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def desk(outcrop: Outcrop) -> Outcrop:
    good = rows(21, 40)
    outcrop.put_lines("s3://check/good.jsonl", good)
    outcrop.put_lines("s3://check/bad.jsonl", [*good[:10], *PLANTED, *good[10:]])
    outcrop.put_lines("s3://check/held-out.jsonl", [*rows(22, 10), good[3]])
    return outcrop


def test_over_http_every_finding_comes_with_its_place_and_remedy(desk: Outcrop) -> None:
    asked: dict[str, Any] = {
        "trainingDataConfig": {"s3Uri": "s3://check/bad.jsonl"}, "validationDataConfig": {"validators": [{"s3Uri": "s3://check/held-out.jsonl"}]},
        "baseModelIdentifier": "outcrop.pebble-v1:0",
    }  # fmt: skip
    report = signed(desk, "POST", "/data-checks", asked)
    assert report["http"] == 200
    assert report["verdict"] == "fails"
    found = {(finding["kind"], finding["uri"].rpartition("/")[2], finding["line"]) for finding in report["findings"]}
    assert {
        ("role", "bad.jsonl", 11),
        ("json", "bad.jsonl", 12),
        ("personal-data", "bad.jsonl", 13),
        ("leakage", "held-out.jsonl", 11),
    } <= found
    (leak,) = [finding for finding in report["findings"] if finding["kind"] == "leakage"]
    assert leak["other"] == {"uri": "s3://check/bad.jsonl", "line": 4}
    (card,) = [finding for finding in report["findings"] if finding["kind"] == "personal-data"]
    assert card["field"] == "messages.0.content"
    assert PLANTED[2][card["column"] - 1 :].startswith("4111")
    assert "4111 1111" not in json.dumps(report)
    assert all(finding["remedy"] for finding in report["findings"])


def test_bad_requests_are_told_apart(desk: Outcrop) -> None:
    assert (
        signed(desk, "POST", "/data-checks", {"trainingDataConfig": {"s3Uri": "s3://check/none.jsonl"}})["http"] == 400
    )
    assert signed(desk, "POST", "/data-checks", {"traningDataConfig": {}})["http"] == 400
    unknown = {"trainingDataConfig": {"s3Uri": "s3://check/good.jsonl"}, "baseModelIdentifier": "nobody.knows-v1:0"}
    assert signed(desk, "POST", "/data-checks", unknown)["http"] == 404


def test_from_the_command_line(desk: Outcrop, tmp_path: Path) -> None:
    said = outcrop_data(
        desk,
        "check",
        "s3://check/bad.jsonl",
        "--base",
        "outcrop.pebble-v1:0",
        "--fix",
        str(tmp_path / "mended.jsonl"),
        code=1,
    )
    assert "line 11: messages has 1 messages" in said.stdout
    assert "A job on this data would fail." in said.stdout
    assert "left out" in said.stderr
    outcrop_data(desk, "check", str(tmp_path / "mended.jsonl"))
    report = json.loads(
        outcrop_data(
            desk,
            "check",
            "s3://check/good.jsonl",
            "--family",
            "claude-3-haiku",
            "--set",
            "epochCount=99",
            "--json",
            code=1,
        ).stdout
    )
    assert {finding["kind"] for finding in report["findings"] if finding["severity"] == "fails"} == {"hyperparameter"}


def test_rows_are_described_and_shown(desk: Outcrop, tmp_path: Path) -> None:
    said = outcrop_data(
        desk, "describe", "s3://check/good.jsonl", "--html", str(tmp_path / "page.html"), "--row", "7"
    ).stdout
    assert "whole rows" in said
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2
    assert "Row on line 7" in page
    shown = outcrop_data(desk, "show", "s3://check/good.jsonl", "--row", "7").stdout
    assert "\u27e6" in shown
    assert "learned" in shown
    outcrop_data(desk, "show", "s3://check/good.jsonl", "--row", "4000", code=1)


@pytest.mark.slow
def test_a_job_keeps_what_its_check_found_also_when_it_fails(desk: Outcrop) -> None:
    where = {"trainingDataConfig": {"s3Uri": "s3://check/bad.jsonl"}, "outputDataConfig": {"s3Uri": "s3://check/out"}}
    job = desk.tune("checked", **where)
    assert job["status"] == "Failed"
    assert re.search(r"line 12, column \d: is not JSON", job["failureMessage"])
    assert job["statusDetails"]["validationDetails"]["status"] == "Failed"
    key = f"out/model-customization-job-{job['jobArn'].rpartition('/')[2]}/data_check.json"
    report = json.loads(desk.client("s3").get_object(Bucket="check", Key=key)["Body"].read())
    assert report["verdict"] == "fails"
    assert {finding["line"] for finding in report["findings"]} >= {11, 12, 13}


def test_a_table_becomes_rows_that_are_parted_and_mixed_without_one_lost_or_twice(
    desk: Outcrop, tmp_path: Path
) -> None:
    table, converted, parts, mixed = tmp_path / "t.csv", tmp_path / "t.jsonl", tmp_path / "parts", tmp_path / "m.jsonl"
    table.write_text(
        "prompt,completion\n" + "".join(f"What is {n} plus one hundred?,It is {n + 100}\n" for n in range(40))
    )
    outcrop_data(desk, "convert", str(table), str(converted))
    outcrop_data(desk, "split", str(converted), "--out", str(parts), "--test", "10")
    whole = converted.read_text().splitlines()
    parted = {part: (parts / f"{part}.jsonl").read_text().splitlines() for part in ("train", "validation", "test")}
    assert {part: len(lines) for part, lines in parted.items()} == {"train": 32, "validation": 4, "test": 4}
    assert sorted(line for lines in parted.values() for line in lines) == sorted(whole)
    outcrop_data(desk, "mix", str(mixed), f"{parts / 'train.jsonl'}=0.5", f"{parts / 'test.jsonl'}=0.5")
    drawn = mixed.read_text().splitlines()
    assert len(set(drawn)) == len(drawn) == 8
    assert set(parted["test"]) < set(drawn) < {*parted["test"], *parted["train"]}
    refused = outcrop_data(desk, "mix", str(mixed), f"{parts / 'train.jsonl'}=half", code=1)
    assert "half" in refused.stderr
