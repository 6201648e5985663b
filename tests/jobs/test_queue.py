import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outcrop.clock import now
from outcrop.errors import Conflict, Invalid
from outcrop.jobs import Job, Jobs, Lost, Phase, Tell, work
from outcrop.jobs.worker import Stopped
from outcrop.storage import Storage, Taken


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(Storage(tmp_path / "home").records)


def submit(jobs: Jobs, name: str = "one", kind: str = "k") -> Job:
    job = Job(
        id=f"id-{name}",
        arn=f"arn:x/{name}",
        name=name,
        kind=kind,
        request={},
        created_at=now(),
        modified_at=now(),
        phases={"p": Phase()},
    )
    jobs.submit(job)
    return job


def run(jobs: Jobs, act: Any, seconds: float = 10) -> Job:
    end = time.monotonic() + seconds

    def should_end() -> bool:
        return time.monotonic() > end or all(job.ended_at for job in jobs.records.all())

    work(jobs, {"k": act}, should_end, lease_s=5)
    return jobs.records.all()[0]


def test_a_job_goes_through_its_phases_and_keeps_its_events(jobs: Jobs) -> None:
    submit(jobs)

    def act(job: Job, tell: Tell) -> None:
        with tell.phase("p"):
            tell.event(kind="step", step=1)
            tell.result(answer=42)

    job = run(jobs, act)
    assert (job.status, job.phases["p"].status, job.result) == ("Completed", "Completed", {"answer": 42})
    assert [event["kind"] for event in jobs.events(job.id)] == ["phase", "step", "phase", "ended"]
    assert [event["number"] for event in jobs.events(job.id, after=2)] == [3, 4]


def test_a_failed_job_keeps_its_reason_and_its_phase(jobs: Jobs) -> None:
    submit(jobs)

    def act(job: Job, tell: Tell) -> None:
        with tell.phase("p"):
            raise Invalid("line 3: completion is missing")

    job = run(jobs, act)
    assert (job.status, job.failure, job.phases["p"].status) == ("Failed", "line 3: completion is missing", "Failed")


def test_a_bug_in_the_work_ends_the_job_with_its_name(jobs: Jobs) -> None:
    submit(jobs)
    job = run(jobs, lambda job, tell: {}["x"])
    assert job.status == "Failed"
    assert "KeyError" in job.failure


def test_a_running_job_hears_that_it_is_to_stop(jobs: Jobs) -> None:
    submitted = submit(jobs)

    def act(job: Job, tell: Tell) -> None:
        jobs.stop(submitted)
        assert tell.wants_stop.wait(8)
        raise Stopped

    assert run(jobs, act, 15).status == "Stopped"
    with pytest.raises(Conflict):
        jobs.stop(submitted)


def test_a_job_that_has_not_begun_stops_at_once(jobs: Jobs) -> None:
    assert jobs.stop(submit(jobs)).status == "Stopped"
    assert jobs.claim("worker") is None


def test_a_dead_workers_job_goes_to_another_and_its_writes_are_refused(jobs: Jobs) -> None:
    submit(jobs)
    dead = jobs.claim("dead", lease_s=-1)
    alive = jobs.claim("alive")
    assert dead is not None
    assert alive is not None
    assert alive.fence == dead.fence + 1
    with pytest.raises(Lost):
        jobs.tell(dead, [{"kind": "step"}])
    with pytest.raises(Lost):
        jobs.end(dead, "Completed")
    jobs.end(alive, "Completed")
    assert jobs.records.all()[0].status == "Completed"


def test_two_workers_never_hold_the_same_job(jobs: Jobs) -> None:
    submit(jobs, "one")
    submit(jobs, "two")
    first, second, third = jobs.claim("a"), jobs.claim("b"), jobs.claim("c")
    assert first is not None
    assert second is not None
    assert first.job != second.job
    assert third is None


def test_a_jobs_name_is_unique(jobs: Jobs) -> None:
    submit(jobs)
    with pytest.raises(Taken):
        submit(jobs)


def test_a_job_that_ended_before_its_worker_died_is_not_run_again(jobs: Jobs) -> None:
    submitted = submit(jobs)
    dead = jobs.claim("dead", lease_s=-1)
    assert dead is not None
    ended = jobs.change(dead, lambda job: msgspec.structs.replace(job, status="Completed", ended_at=now()))
    assert ended.ended_at is not None
    ran = []
    end = time.monotonic() + 1.5
    work(jobs, {"k": lambda job, tell: ran.append(job)}, lambda: time.monotonic() > end)
    assert ran == []
    assert jobs.claim("next") is None
    assert jobs.records.get(submitted.id) == ended


def test_a_dead_workers_job_is_free_at_once_and_a_living_ones_is_not(jobs: Jobs) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    submit(jobs)
    assert jobs.claim(f"here:{dead.pid}") is not None
    jobs.free_of_the_dead("elsewhere")
    assert jobs.claim("next") is None
    jobs.free_of_the_dead("here")
    assert jobs.claim(f"here:{os.getpid()}") is not None
    jobs.free_of_the_dead("here")
    assert jobs.claim("next") is None


def test_a_stopped_job_can_be_queued_again_and_a_running_one_cannot(jobs: Jobs) -> None:
    stopped = jobs.stop(submit(jobs))
    assert jobs.resume(stopped).status == "InProgress"
    with pytest.raises(Conflict, match="only a stopped or failed one"):
        jobs.resume(stopped)
    assert jobs.claim("worker") is not None
