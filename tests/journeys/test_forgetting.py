"""Continued pre-training on plain text, with what the model forgets in sight."""

import csv
import io
import json
from itertools import islice
from typing import Any

import pytest

from outcrop.demo.tickets import tickets
from tests.conftest import Outcrop

pytestmark = pytest.mark.slow
LETTER = "Dear {name},\nthe quarry opens at nine. Bring boots.\n\nYours, the keeper of the {stone} pit.\n"


def letters(number: int) -> str:
    stones = ("slate", "chalk", "flint", "marble")
    parts = [LETTER.format(name=f"visitor {n}", stone=stones[n % 4]) for n in range(number)]
    return "<|endoftext|>\n".join(parts)


def put(server: Outcrop, key: str, text: str) -> str:
    server.client("s3").put_object(Bucket="lessons", Key=key, Body=text.encode())
    return f"s3://lessons/{key}"


def test_plain_text_is_learned_and_the_general_loss_is_watched(outcrop: Outcrop) -> None:
    outcrop.put_lines("s3://lessons/general.jsonl", [ticket.row for ticket in islice(tickets(5), 20)])
    job = outcrop.tune(
        "letters", customizationType="CONTINUED_PRE_TRAINING",
        trainingDataConfig={"s3Uri": put(outcrop, "letters.txt", letters(60))},
        validationDataConfig={"validators": [{"s3Uri": put(outcrop, "held-out.txt", letters(70)[-600:])}]},
        hyperParameters={"generalValidationS3Uri": "s3://lessons/general.jsonl", "batchSize": "8", "epochCount": "2"},
    )  # fmt: skip
    assert job["status"] == "Completed", job.get("failureMessage")
    model = outcrop.client("bedrock").get_custom_model(modelIdentifier="letters")
    assert model["hyperParameters"]["generalValidationS3Uri"] == "s3://lessons/general.jsonl"

    def table(name: str) -> list[dict[str, Any]]:
        key = (
            f"out/model-customization-job-{job['jobArn'][-12:]}/validation_artifacts/post_fine_tuning_validation/{name}"
        )
        text = outcrop.client("s3").get_object(Bucket="lessons", Key=key)["Body"].read().decode()
        return list(csv.DictReader(io.StringIO(text)))

    general, validation = table("general_metrics.csv"), table("validation_metrics.csv")
    assert [row["step_number"] for row in general] == ["-1", *(row["step_number"] for row in validation)]
    assert float(general[-1]["general_loss"]) > float(general[0]["general_loss"]), "letters make it forget tickets"
    assert float(validation[-1]["validation_loss"]) < float(validation[0]["validation_loss"])


def test_a_text_that_is_not_utf_8_and_a_general_set_that_is_not_there_are_named(outcrop: Outcrop) -> None:
    outcrop.put_lines("s3://lessons/rows.jsonl", [json.dumps({"input": "some text"})])
    outcrop.client("s3").put_object(Bucket="lessons", Key="broken.txt", Body=b"one\ntwo\n\xff three\n")
    text = {"customizationType": "CONTINUED_PRE_TRAINING"}
    job = outcrop.tune("broken", trainingDataConfig={"s3Uri": "s3://lessons/broken.txt"}, **text)
    assert "line 3, column 1: is not UTF-8" in job["failureMessage"]
    job = outcrop.tune(
        "nothing", trainingDataConfig={"s3Uri": "s3://lessons/rows.jsonl"},
        hyperParameters={"generalValidationS3Uri": "s3://lessons/nowhere.jsonl"}, **text,
    )  # fmt: skip
    assert "s3://lessons/nowhere.jsonl: there is no such object" in job["failureMessage"]
