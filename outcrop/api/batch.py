"""Batch inference."""

from datetime import timedelta
from typing import Any

from outcrop.api import jobs
from outcrop.api.call import Call
from outcrop.api.lists import page
from outcrop.api.tags import read_tags
from outcrop.clock import now
from outcrop.errors import Invalid, Unsupported
from outcrop.jobs import Job
from outcrop.jobs.job import COMPLETED
from outcrop.names import short_id

Request = dict[str, Any]
KIND = "batch"
# AWS's default of timeoutDurationInHours.
TIMEOUT_H = 24


def create_model_invocation_job(request: Request, call: Call) -> Request:
    """Answer every record of the files in S3; bodies of InvokeModel, or of Converse.

    Raises Conflict, Invalid, NotFound, Unsupported.
    """
    return {"jobArn": call.once(KIND, request, lambda: _create(request, call))}


def _create(request: Request, call: Call) -> str:
    output = request["outputDataConfig"].get("s3OutputDataConfig") or {}
    if output.get("s3EncryptionKeyId"):
        raise Unsupported("s3EncryptionKeyId: Outcrop does not encrypt objects with KMS keys; leave it out")
    given = (request["inputDataConfig"].get("s3InputDataConfig") or {}).get("s3Uri")
    wanted = output.get("s3Uri")
    if given is None or wanted is None:
        raise Invalid(
            "inputDataConfig.s3InputDataConfig.s3Uri and outputDataConfig.s3OutputDataConfig.s3Uri are needed"
        )
    jobs.check_output(wanted, "outputDataConfig.s3OutputDataConfig.s3Uri", call)
    call.service.serving.target(request["modelId"])
    identifier = short_id()
    job = Job(
        id=identifier, arn=call.names.arn("model-invocation-job", identifier), name=request["jobName"], kind=KIND,
        created_at=now(), modified_at=now(), tags=read_tags(request.get("tags")),
        request={
            "model": request["modelId"], "role": request["roleArn"], "input_uri": given, "output_uri": wanted,
            "type": request.get("modelInvocationType", "InvokeModel"), "vpcConfig": request.get("vpcConfig"),
            "timeout_h": request.get("timeoutDurationInHours", TIMEOUT_H), "token": request.get("clientRequestToken"),
        },
    )  # fmt: skip
    return jobs.submit(job, call)


def get_model_invocation_job(request: Request, call: Call) -> Request:
    """A batch job with its counts."""
    return _details(_find(request["jobIdentifier"], call))


def list_model_invocation_jobs(request: Request, call: Call) -> Request:
    """Batch jobs, newest first."""
    found, following = page(call.service.jobs.all(KIND), request, _status, created="submitTime")
    return {"invocationJobSummaries": [_details(job) for job in found], "nextToken": following}


def stop_model_invocation_job(request: Request, call: Call) -> Request:
    """Stop; what has been answered is written out. Raises Conflict when it is over."""
    jobs.stop(_find(request["jobIdentifier"], call), call)
    return {}


def _status(job: Job) -> str:
    """Bedrock's word: a job that ran out of time is PartiallyCompleted, or Expired when nothing was answered."""
    if job.status == COMPLETED and job.result.get("expired"):
        return "PartiallyCompleted" if job.result["counts"]["processedRecordCount"] else "Expired"
    return job.status


def _details(job: Job) -> Request:
    asked, counts = job.request, job.result.get("counts") or {}
    names = ("totalRecordCount", "processedRecordCount", "successRecordCount", "errorRecordCount")
    return {
        "jobArn": job.arn,
        "jobName": job.name,
        "modelId": asked["model"],
        "clientRequestToken": asked["token"],
        "roleArn": asked["role"],
        "status": _status(job),
        "message": job.failure or None,
        "submitTime": job.created_at,
        "lastModifiedTime": job.modified_at,
        "endTime": job.ended_at,
        "inputDataConfig": {"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": asked["input_uri"]}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": asked["output_uri"]}},
        "vpcConfig": asked["vpcConfig"],
        "timeoutDurationInHours": asked["timeout_h"],
        "jobExpirationTime": job.created_at + timedelta(hours=asked["timeout_h"]),
        "modelInvocationType": asked["type"],
        **{name: counts[name] for name in names if name in counts},
    }


def _find(identifier: str, call: Call) -> Job:
    return jobs.find(KIND, identifier, call, "model invocation job")
