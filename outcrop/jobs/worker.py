"""The worker: claims jobs and runs them, one at a time."""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from outcrop.clock import now
from outcrop.errors import OutcropError
from outcrop.jobs.job import COMPLETED, FAILED, IN_PROGRESS, STOPPED, Job, Phase
from outcrop.jobs.queue import LEASE_S, Jobs, Lease, Lost

log = logging.getLogger("outcrop.jobs")

POLL_S = 0.3
# A job that takes its worker down this often is given up, so that those behind it get their turn.
MOST_TRIES = 5


class Stopped(Exception):
    """Work ends because the job was asked to stop and has kept what it has."""


class Tell:
    """What running work may say of itself, and hear."""

    def __init__(self, jobs: Jobs, lease: Lease) -> None:
        self._jobs, self._lease = jobs, lease
        self.wants_stop = threading.Event()
        self.is_lost = threading.Event()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A station of the work: InProgress, then Completed, or Failed/Stopped when it raises."""
        self._set_phase(name, IN_PROGRESS)
        try:
            yield
        except Stopped:
            self._set_phase(name, STOPPED)
            raise
        except Lost:
            raise
        except BaseException:
            self._set_phase(name, FAILED)
            raise
        self._set_phase(name, COMPLETED)

    def _set_phase(self, name: str, status: str) -> None:
        def change(job: Job) -> Job:
            begun = job.phases.get(name, Phase()).begun_at if status != IN_PROGRESS else now()
            return msgspec.structs.replace(job, phases={**job.phases, name: Phase(status, begun, now())})

        self._jobs.change(self._lease, change)
        self.event(kind="phase", phase=name, status=status)

    def event(self, **line: Any) -> None:
        """One event."""
        self.events([line])

    def events(self, lines: list[dict[str, Any]]) -> None:
        """Several events. Raises Lost."""
        if self.is_lost.is_set():
            raise Lost(self._lease.job)
        if lines:
            self._jobs.tell(self._lease, lines)

    def told(self) -> list[dict[str, Any]]:
        """Every event that this work, or an earlier try at it, has told."""
        return self._jobs.all_events(self._lease.job)

    def result(self, **fields: Any) -> None:
        """Add to what the job's record says came of it."""
        self._jobs.change(self._lease, lambda job: msgspec.structs.replace(job, result={**job.result, **fields}))

    def check(self) -> None:
        """Raise Stopped when the job was asked to stop, Lost when another worker has it."""
        if self.is_lost.is_set():
            raise Lost(self._lease.job)
        if self.wants_stop.is_set():
            raise Stopped


Work = Callable[[Job, Tell], None]


def work(jobs: Jobs, kinds: Mapping[str, Work], should_end: Callable[[], bool], lease_s: float = LEASE_S) -> None:
    """Claim and run jobs until `should_end`. A job's failure is its record's, never the worker's."""
    host = socket.gethostname()
    owner = f"{host}:{os.getpid()}"
    while not should_end():
        jobs.free_of_the_dead(host)
        lease = jobs.claim(owner, lease_s)
        if lease is None:
            time.sleep(POLL_S)
            continue
        with contextlib.suppress(Lost):
            _run(jobs, lease, kinds[lease.kind], lease_s)


def _run(jobs: Jobs, lease: Lease, act: Work, lease_s: float) -> None:
    job = jobs.records.get(lease.job)
    if job is None or job.ended_at is not None:  # a worker died after it had said how the job ended
        jobs.forget(lease)
        return
    if lease.fence > MOST_TRIES:
        jobs.end(
            lease,
            FAILED,
            f"the worker died {MOST_TRIES} times while it ran this job; it may need more memory than there is",
        )
        return
    tell = Tell(jobs, lease)
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(jobs, lease, tell, over, lease_s), daemon=True)
    keeper.start()
    try:
        act(job, tell)
        status, failure = COMPLETED, ""
    except Stopped:
        status, failure = STOPPED, ""
    except Lost:
        log.warning("job %s went to another worker", lease.job)
        raise
    except OutcropError as error:
        status, failure = FAILED, error.message
    except Exception as error:  # an edge: the job must end with a reason
        log.exception("job %s failed", lease.job)
        status, failure = FAILED, f"{type(error).__name__}: {error}"
    finally:
        over.set()
        keeper.join()
    jobs.end(lease, status, failure)


def _keep(jobs: Jobs, lease: Lease, tell: Tell, over: threading.Event, lease_s: float) -> None:
    """Renew the lease and hear whether the job is to stop."""
    renewed = 0.0
    while not over.wait(0.2):
        if jobs.is_asked_to_stop(lease):
            tell.wants_stop.set()
        if time.monotonic() - renewed < min(2.0, lease_s / 3):
            continue
        try:
            jobs.renew(lease, lease_s)
            renewed = time.monotonic()
        except Lost:
            tell.is_lost.set()
            return
