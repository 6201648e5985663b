"""Sweeps, an extension: many settings over one training file, and the best weights."""

from math import prod
from typing import Any

import msgspec

from outcrop import hyperparameters
from outcrop.api import jobs
from outcrop.api.call import Call
from outcrop.api.lists import page
from outcrop.clock import now
from outcrop.errors import Invalid
from outcrop.jobs import Job, Phase
from outcrop.names import short_id

Request = dict[str, Any]
KIND = "sweep"
MOST_TRIALS = 1000
TYPES = ("FINE_TUNING", "CONTINUED_PRE_TRAINING")


class _S3(msgspec.Struct, forbid_unknown_fields=True):
    s3Uri: str


class _Validators(msgspec.Struct, forbid_unknown_fields=True):
    validators: list[_S3] = []


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a sweep. `ranges` need `trials`; without `trials` every combination of `grid` is tried."""

    sweepName: str
    baseModelIdentifier: str
    trainingDataConfig: _S3
    outputDataConfig: _S3
    validationDataConfig: _Validators = msgspec.field(default_factory=_Validators)
    customizationType: str = "FINE_TUNING"
    hyperParameters: dict[str, str] = {}
    grid: dict[str, list[str]] = {}
    ranges: dict[str, tuple[str, str]] = {}
    trials: int | None = None


def create_model_customization_sweep(request: Request, call: Call) -> Request:
    """Try settings over one training file: every combination of `grid`, or `trials` chosen from `grid` and `ranges`.

    Raises Invalid, NotFound, Conflict.
    """
    try:
        asked = msgspec.convert(request, Asked)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from None
    if asked.customizationType not in TYPES:
        raise Invalid(f"customizationType is {asked.customizationType!r}; it must be {' or '.join(TYPES)}")
    if not asked.grid and not asked.ranges:
        raise Invalid("grid and ranges are empty; name a hyperparameter and its values")
    if asked.ranges and asked.trials is None:
        raise Invalid("ranges need trials, the number of settings to try")
    trials = asked.trials if asked.trials is not None else prod(map(len, asked.grid.values()))
    if not 1 <= trials <= MOST_TRIALS:
        raise Invalid(f"the sweep has {trials:,} trials; from 1 to {MOST_TRIALS:,} are taken")
    if "generalValidationS3Uri" in asked.hyperParameters:
        raise Invalid("generalValidationS3Uri is for jobs; a sweep compares validation losses alone")
    jobs.check_output(asked.outputDataConfig.s3Uri, "outputDataConfig.s3Uri", call)
    registry = call.service.registry
    parent = registry.find_custom(asked.baseModelIdentifier)
    base = registry.base(parent.base if parent else asked.baseModelIdentifier)
    hyperparameters.read(asked.hyperParameters, base.num_parameters, asked.customizationType)
    identifier = short_id()
    job = Job(
        id=identifier, arn=call.names.arn("model-customization-sweep", f"{base.id}/{identifier}"), name=asked.sweepName,
        kind=KIND, created_at=now(), modified_at=now(), phases={name: Phase() for name in ("validation", "training")},
        request={
            "base": parent.arn if parent else base.id, "base_model": base.id, "context": base.context,
            "num_parameters": base.num_parameters, "customization": asked.customizationType,
            "training_uri": asked.trainingDataConfig.s3Uri,
            "validation_uris": [one.s3Uri for one in asked.validationDataConfig.validators],
            "output_uri": asked.outputDataConfig.s3Uri, "hyperParameters": asked.hyperParameters, "grid": asked.grid,
            "ranges": asked.ranges, "trials": asked.trials,
        },
    )  # fmt: skip
    return {"sweepArn": jobs.submit(job, call, "sweepName")}


def get_model_customization_sweep(request: Request, call: Call) -> Request:
    """A sweep with its trials: in the order in which they ended while it runs, best first when it is over."""
    job = _find(request["sweepIdentifier"], call)
    told = [event for event in call.service.jobs.all_events(job.id) if event["kind"] == "trial"]
    return {
        **_summary(job),
        "baseModelIdentifier": job.request["base"],
        "trainingDataConfig": {"s3Uri": job.request["training_uri"]},
        "outputDataConfig": {"s3Uri": job.request["output_uri"]},
        "failureMessage": job.failure or None,
        "weightsS3Uri": job.result.get("weights_uri"),
        "trials": [
            {
                "hyperParameters": trial["hyperparameters"], "validationLoss": trial["loss"],
                "stoppedEarly": trial["was_stopped"], "seconds": trial["seconds"], "failureMessage": trial["failure"] or None,
            }
            for trial in job.result.get("trials") or told
        ],
    }  # fmt: skip


def list_model_customization_sweeps(request: Request, call: Call) -> Request:
    """Sweeps, newest first."""
    most = str(request.get("maxResults", "100"))
    unknown = sorted(set(request) - {"maxResults", "nextToken", "nameContains", "statusEquals"})
    if unknown:
        raise Invalid(f"{unknown[0]} is not known; known are maxResults, nextToken, nameContains, statusEquals")
    if not (most.isascii() and most.isdigit()) or not 0 < int(most) <= 1000:
        raise Invalid(f"maxResults is {most!r}; it must be a number from 1 to 1000")
    found, following = page(call.service.jobs.all(KIND), {**request, "maxResults": int(most)}, lambda job: job.status)
    return {"sweepSummaries": [_summary(job) for job in found], "nextToken": following}


def stop_model_customization_sweep(request: Request, call: Call) -> Request:
    """End the trials under way where they are and begin no more; what there is is written out."""
    jobs.stop(_find(request["sweepIdentifier"], call), call)
    return {}


def _summary(job: Job) -> Request:
    return {
        "sweepArn": job.arn, "sweepName": job.name, "status": job.status, "creationTime": job.created_at,
        "endTime": job.ended_at,
    }  # fmt: skip


def _find(identifier: str, call: Call) -> Job:
    return jobs.find(KIND, identifier, call, "sweep")
