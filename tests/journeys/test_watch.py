"""`outcrop watch` on logs in S3: what changed is told by its name, with an exit status; spot checks are held against the first one."""

import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

BASE = "outcrop.pebble-v1:0"
WORDS = "order parcel lamp invoice charge refund address courier account password screen cable battery remote filter".split()


def record(number, at, asked, answered, model=BASE, **more):
    return json.dumps({
        "schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": f"{at:%Y-%m-%dT%H:%M:%SZ}", "requestId": str(number), "operation": "Converse",
        "modelId": model, "input": {"inputBodyJson": {"messages": [{"role": "user", "content": [{"text": asked}]}]}, "inputTokenCount": len(asked) // 4},
        "output": {"outputBodyJson": {"output": {"message": {"role": "assistant", "content": [{"text": answered}]}}, "stopReason": "end_turn"}, "outputTokenCount": 9},
        **more,
    })  # fmt: skip


def logged(rng, at, count, longest=9, refusing=0.0, model=BASE):
    refusal = "I'm sorry, but I cannot help with that."
    return [
        record(
            number,
            at,
            " ".join(rng.choices(WORDS, k=rng.randint(3, longest))),
            refusal if rng.random() < refusing else "Done.",
            model,
        )
        for number in range(count)
    ]


def watch(outcrop, folder, *arguments, status):
    command = [sys.executable, "-m", "outcrop", "watch", *arguments, "--out", str(folder / "watch")]
    done = subprocess.run(
        command, env={**outcrop.environment, "COLUMNS": "200"}, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == status, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def times():
    return datetime.now(UTC) - timedelta(days=3), datetime.now(UTC) - timedelta(minutes=5)


@pytest.mark.slow
def test_a_calm_log_is_calm_and_a_changed_one_is_not(outcrop, tmp_path, times) -> None:
    rng = random.Random(4)
    earlier, recently = times
    outcrop.put_lines(
        "s3://calm/logs/a.jsonl",
        [
            *logged(rng, earlier, 120),
            *logged(rng, recently, 120),
            *logged(rng, recently, 50, 40, 1.0, "another.model-v1:0"),
        ],
    )
    said = watch(outcrop, tmp_path, BASE, "--logs", "s3://calm/logs", status=0)
    assert "120 recent calls against 120 earlier calls" in said
    assert "nothing to tell" in said
    outcrop.put_lines(
        "s3://changed/logs/a.jsonl",
        [
            *logged(rng, earlier, 120),
            *logged(rng, recently, 120, 25, 0.4),
            "{",
            record(1, recently, "x", "y", input={"inputBodyJson": {"inputText": 3}}),
        ],
    )
    said = watch(outcrop, tmp_path, BASE, "--logs", "s3://changed/logs", status=2)
    found = json.loads((tmp_path / "watch/watch.jsonl").read_text().splitlines()[1])
    assert {"input length", "refusals"} <= {one["name"] for one in found["changes"] if one["is_told"]}
    assert found["unread"] == 2
    assert "there is something to tell" in said


@pytest.mark.slow
def test_a_custom_models_calls_are_held_against_its_training_prompts(outcrop, tmp_path, times) -> None:
    rng = random.Random(5)
    rows = [
        json.dumps({"prompt": " ".join(rng.choices(WORDS, k=rng.randint(3, 9))), "completion": "Done."})
        for _ in range(80)
    ]
    outcrop.put_lines("s3://lessons/train.jsonl", rows)
    assert outcrop.tune("watched", hyperParameters={"epochCount": "1"})["status"] == "Completed"
    bedrock = outcrop.client("bedrock")
    model = bedrock.get_custom_model(modelIdentifier="watched")["modelArn"]
    arn = bedrock.create_custom_model_deployment(modelDeploymentName="watched-desk", modelArn=model)[
        "customModelDeploymentArn"
    ]
    named, by_deployment = (logged(rng, times[1], 40, model=name) for name in ("watched", arn))
    outcrop.put_lines("s3://used/logs/a.jsonl", [*named, *by_deployment])
    assert "40 recent calls" in watch(outcrop, tmp_path, "watched-desk", "--logs", "s3://used/logs", status=0)
    said = watch(outcrop, tmp_path, "watched", "--logs", "s3://used/logs", status=0)
    assert "the 80 prompts that it was trained on" in said
    assert "input length" in said


@pytest.mark.slow
def test_spot_checks_are_held_against_the_first_one(outcrop, tmp_path, times) -> None:
    rows = [json.dumps({"prompt": f"{name}: {word}\n\nWhat is the color of {name}?", "referenceResponse": f"The color of {name} is {word}."})
            for name in "Anna Tom Maria Peter Lena Omar Julia David".split() for word in "red blue green black white".split()]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    outcrop.put_lines("s3://few/logs/a.jsonl", logged(random.Random(6), times[1], 3))
    spot = (BASE, "--logs", "s3://few/logs", "--data", str(tmp_path / "rows.jsonl"), "--spot", "40")
    first = watch(outcrop, tmp_path, *spot, status=0)
    assert "spot check: exact" in first
    assert "fewer than 30 on a side" in first
    assert "+0.0 pt" in watch(outcrop, tmp_path, *spot, status=0)
    # The same model on rows that it now gets wrong: the first check is written as if it had had them right.
    wrong = [json.loads(row) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({**row, "referenceResponse": "x"}) for row in wrong))
    (tmp_path / "watch/spots.jsonl").unlink()
    watch(outcrop, tmp_path, *spot, status=0)
    now = json.loads((tmp_path / "watch/spots.jsonl").read_text())
    (tmp_path / "watch/spots.jsonl").write_text(json.dumps({**now, "scores": [1.0] * 40}) + "\n")
    assert "worse" in watch(outcrop, tmp_path, *spot, status=2)


@pytest.mark.slow
def test_a_misspelt_model_and_calls_that_have_stopped_are_told(outcrop, tmp_path, times) -> None:
    outcrop.put_lines("s3://silent/logs/a.jsonl", logged(random.Random(8), times[0], 60))
    assert "Could not resolve" in watch(outcrop, tmp_path, "nobody", "--logs", "s3://silent/logs", status=1)
    said = watch(outcrop, tmp_path, BASE, "--logs", "s3://silent/logs", status=2)
    assert "no calls in the last 24 hours, after 60 before them" in said


def test_without_logs_it_says_where_to_begin(outcrop, tmp_path) -> None:
    assert "configure the invocation log" in watch(outcrop, tmp_path, BASE, status=1)
    assert "there is no bucket" in watch(outcrop, tmp_path, BASE, "--logs", "s3://nobody/logs", status=1)
