"""What operations on jobs of every kind have alike: queueing, finding, stopping."""

from outcrop.api.call import Call
from outcrop.errors import Conflict, Invalid, NotFound
from outcrop.jobs import Job
from outcrop.jobs.job import STOPPED, STOPPING
from outcrop.storage import Taken


def submit(job: Job, call: Call, field: str = "jobName") -> str:
    """Queue a job; its ARN. Raises Conflict when its name is in use among jobs of its kind."""
    try:
        call.service.jobs.submit(job)
    except Taken:
        raise Conflict(f"There is already a job named {job.name}; choose another {field}") from None
    return job.arn


def find(kind: str, identifier: str, call: Call, what: str) -> Job:
    """A job by ARN, id or name. Raises NotFound."""
    job = call.service.jobs.find(kind, identifier)
    if job is None:
        raise NotFound(f"There is no {what} {identifier!r}")
    return job


def stop(job: Job, call: Call) -> None:
    """Ask a job to stop; once asked it may be asked again. Raises Conflict when it is over."""
    if job.status == STOPPED:
        raise Conflict(f"The job {job.name} is already stopped")
    if job.status != STOPPING:
        call.service.jobs.stop(job)


def check_output(uri: str, field: str, call: Call) -> None:
    """Raise Invalid unless there is a bucket to write to, now rather than when everything has been done."""
    bucket = uri.removeprefix("s3://").partition("/")[0]
    if not uri.startswith("s3://"):
        raise Invalid(f"{field} is {uri!r}; it must begin with s3://")
    if call.storage.objects.bucket(bucket) is None:
        raise Invalid(f"{field}: there is no bucket {bucket!r}; create it first")
