"""Sweeps: what is tried, which trials are stopped, and that a broken-off sweep goes on."""

import json
import os
import subprocess
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import boto3
import msgspec
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session

from outcrop.demo.tickets import tickets
from outcrop.errors import Invalid
from outcrop.training import Result
from outcrop.workflows.trials import SAID, Grid, Guided, Trial, Trials, is_losing, picture, search_of, table
from tests.conftest import ROLE, Outcrop


def trial(*losses: float) -> Trial:
    return Trial({"batchSize": "8"}, min(losses), curve(*losses), False, 1.0)


def curve(*losses: float) -> list[tuple[float, float]]:
    return [((place + 1) / len(losses), loss) for place, loss in enumerate(losses)]


def test_every_combination_is_tried_once() -> None:
    search = search_of({"batchSize": ["4", "8"], "epochCount": ["1", "2", "3"]}, {}, None, {})
    tried = list(iter(search.ask, None))
    assert len(tried) == len({tuple(one.items()) for one in tried}) == 6


@pytest.mark.parametrize(
    ("values", "ranges", "trials", "given", "message"),
    [
        ({"maxTokens": ["10", "20"]}, {}, None, {}, "maxTokens"),
        ({"batchSize": ["4"]}, {}, None, {"batchSize": "8"}, "both set and swept"),
        ({"batchSize": ["4", "many"]}, {}, None, {}, "whole number"),
        ({}, {}, None, {}, "names no hyperparameter"),
        ({}, {"loraRank": ("4", "64")}, None, {}, "number of trials"),
        ({}, {"loraRank": ("64", "4")}, 5, {}, "two rising numbers"),
        ({}, {"method": ("lora", "full")}, 5, {}, "two rising numbers"),
        ({"loraRank": ["4"]}, {"loraRank": ("4", "64")}, 5, {}, "both values and a range"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_words(
    values: dict, ranges: dict, trials: int | None, given: dict, message: str
) -> None:
    with pytest.raises(Invalid, match=message):
        search_of(values, ranges, trials, given)


def test_a_guided_search_learns_from_what_it_hears() -> None:
    search = Guided({}, {"learningRateMultiplier": ("0.1", "2")}, 40, seed=0)
    losses = []
    while (said := search.ask()) is not None:
        losses.append(abs(float(said["learningRateMultiplier"]) - 0.7))
        search.hear(Trial(said, losses[-1], [], False, 1.0))
    assert len(losses) == 40
    assert sum(losses[20:]) < 0.8 * sum(losses[:20]), "later trials lie nearer to the best"


def test_a_trial_is_stopped_when_it_is_behind_the_median_of_the_others() -> None:
    others = [curve(3.0, 2.0, 1.0), curve(4.0, 3.0, 2.0), curve(5.0, 4.0, 3.0)]
    assert not is_losing([], others)
    assert not is_losing([(0.2, 9.0)], others), "too early to tell"
    assert not is_losing([(0.4, 3.5)], others)
    assert is_losing([(0.4, 4.5)], others)
    assert not is_losing([(0.4, 4.5)], others[:1]), "one trial is no crowd"
    assert not is_losing([(0.4, 3.0), (0.7, 9.0)], others), "its best counts"


@pytest.mark.parametrize("guided", [False, True])
def test_a_broken_off_sweep_counts_what_had_ended(tmp_path: Path, guided: bool) -> None:
    done = tmp_path / "trial-000"
    done.mkdir()
    (done / SAID).write_bytes(msgspec.json.encode({"batchSize": "4"}))
    Result(status="completed", validation_losses=[0.5]).write(done)
    search = Guided({"batchSize": ["4", "8"]}, {}, 1, 0) if guided else Grid({"batchSize": ["4"]})
    ranked = Trials(tmp_path, search, lambda *_: None, 1).run(lambda _: None)
    assert [one.loss for one in ranked] == [0.5], "nothing was left to try"


def test_settings_that_exclude_each_other_are_a_failed_trial_and_no_end_of_the_sweep(tmp_path: Path) -> None:
    def lay_out(_run: Path, _said: dict) -> None:
        raise Invalid("loraRank is only used with method lora")

    told: list[Trial] = []
    ranked = Trials(tmp_path, Grid({"loraRank": ["4", "8"]}), lay_out, 1).run(told.append)
    assert [one.failure for one in ranked] == ["loraRank is only used with method lora"] * 2
    assert told == ranked
    assert not list(tmp_path.iterdir())


def test_a_guided_search_that_goes_on_does_not_try_the_same_again() -> None:
    def drawn(begun: int, number: int) -> list[str]:
        search = Guided({}, {"learningRateMultiplier": ("0.1", "2")}, begun + number, seed=0)
        for _ in range(begun):
            search.skip({"learningRateMultiplier": "1"})
        return [said["learningRateMultiplier"] for said in iter(search.ask, None)]

    first, resumed = drawn(0, 3), drawn(3, 3)
    assert len(resumed) == 3
    assert not set(first) & set(resumed)


def test_table_and_picture_are_whole_with_and_without_losses() -> None:
    failed = Trial({"batchSize": "4"}, None, [], False, 1.0, "<reason>, with a comma")
    for trials in ([trial(3.0, 2.0), failed], [failed]):
        assert ElementTree.fromstring(picture(trials)).tag.endswith("svg")
        assert table(trials).count("\n") == 1 + len(trials)


@pytest.mark.slow
def test_a_sweep_ends_with_a_table_and_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(ticket.row + "\n" for ticket in islice(tickets(3), 40)))
    done = subprocess.run(
        ["outcrop", "sweep", str(file), "--base", "outcrop.pebble-v1:0", "--grid", "learningRateMultiplier=0.1,1",
         "--set", "batchSize=8", "--out", str(tmp_path / "sweep")],
        env={**os.environ, "OUTCROP_HOME": str(tmp_path / "home"), "COLUMNS": "160"}, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ranked = msgspec.json.decode((tmp_path / "sweep/sweep.json").read_bytes(), type=list[Trial])
    assert [one.hyperparameters["learningRateMultiplier"] for one in ranked] == ["1", "0.1"]
    losses = [one.loss for one in ranked]
    assert losses == sorted(losses)
    assert ElementTree.parse(tmp_path / "sweep/sweep.svg")
    assert "the best weights are in" in done.stdout
    assert list(Path(str(ranked[0].checkpoint)).glob("*.safetensors"))


def signed(server: Outcrop, method: str, path: str, body: object = None) -> dict:
    request = AWSRequest(method, server.endpoint + path, data=json.dumps(body) if body is not None else "")
    session = boto3.Session(server.keys.access_key, server.keys.secret, region_name="us-east-1")
    SigV4Auth(session.get_credentials(), "bedrock", "us-east-1").add_auth(request)
    answer = URLLib3Session().send(request.prepare())
    return {"http": answer.status_code, **json.loads(answer.content)}


@pytest.mark.slow
def test_a_sweep_through_the_api_leaves_weights_that_can_be_deployed(outcrop: Outcrop) -> None:
    outcrop.put_lines("s3://sweeps/train.jsonl", [ticket.row for ticket in islice(tickets(3), 40)])
    asked = {
        "sweepName": "rates", "baseModelIdentifier": "outcrop.pebble-v1:0",
        "trainingDataConfig": {"s3Uri": "s3://sweeps/train.jsonl"}, "outputDataConfig": {"s3Uri": "s3://sweeps/out"},
        "hyperParameters": {"batchSize": "8", "epochCount": "1"}, "ranges": {"learningRateMultiplier": ["0.1", "2"]},
        "trials": 3,
    }  # fmt: skip
    refused = signed(outcrop, "POST", "/model-customization-sweeps", {**asked, "trails": 3})
    assert (refused["http"], "trails" in refused["message"]) == (400, True)
    assert signed(outcrop, "GET", "/model-customization-sweeps/nothing")["http"] == 404
    for wrong in (
        {"trials": -1}, {"trials": 100_000}, {"outputDataConfig": {"s3Uri": "sweeps/out"}},
        {"hyperParameters": {"generalValidationS3Uri": "s3://sweeps/train.jsonl"}},
    ):  # fmt: skip
        assert signed(outcrop, "POST", "/model-customization-sweeps", {**asked, **wrong})["http"] == 400
    assert signed(outcrop, "GET", "/model-customization-sweeps?maxResults=%C2%B2")["http"] == 400
    assert signed(outcrop, "GET", "/model-customization-sweeps?creationTimeAfter=2024-01-01")["http"] == 400
    arn = signed(outcrop, "POST", "/model-customization-sweeps", asked)["sweepArn"]
    path = f"/model-customization-sweeps/{arn.rpartition('/')[2]}"
    sweep = outcrop.wait(lambda: signed(outcrop, "GET", path), {"Completed", "Failed"})
    assert sweep["status"] == "Completed", sweep["failureMessage"]
    losses = [one["validationLoss"] for one in sweep["trials"]]
    assert losses == sorted(losses)
    assert len(losses) == 3
    listed = signed(outcrop, "GET", "/model-customization-sweeps")["sweepSummaries"]
    assert [one["sweepName"] for one in listed] == ["rates"]
    folder = sweep["weightsS3Uri"].removesuffix("weights/").removeprefix("s3://sweeps/")
    csv = outcrop.client("s3").get_object(Bucket="sweeps", Key=f"{folder}sweep.csv")["Body"].read().decode()
    assert csv.startswith("rank,learningRateMultiplier,validation_loss")
    bedrock = outcrop.client("bedrock")
    model = bedrock.create_custom_model(
        modelName="swept", roleArn=ROLE, modelSourceConfig={"s3DataSource": {"s3Uri": sweep["weightsS3Uri"]}}
    )["modelArn"]
    outcrop.wait(
        lambda: {"status": bedrock.get_custom_model(modelIdentifier=model)["modelStatus"]}, {"Active", "Failed"}
    )
    assert bedrock.get_custom_model(modelIdentifier=model)["modelStatus"] == "Active"
