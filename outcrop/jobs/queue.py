"""The queue: a row per job that is not over, claimed by lease.

A worker holds a lease for some seconds and renews it. When it dies, the lease runs out and another worker claims the
job with a higher fence; what the dead one might still write carries the old fence and is refused.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, or_, select, update

from outcrop.clock import now
from outcrop.errors import Conflict, Invalid
from outcrop.jobs.job import ENDED, FAILED, IN_PROGRESS, STOPPED, STOPPING, Job
from outcrop.storage import Records
from outcrop.storage.database import events, leases

LEASE_S = 30.0
# AWS's limit of a failureMessage.
MOST_FAILURE = 2048


class Lost(Exception):
    """The lease ran out and another worker has the job; stop at once and write nothing."""


class Lease(msgspec.Struct, frozen=True):
    """A claim on a job."""

    job: str
    kind: str
    owner: str
    fence: int


class Jobs:
    """Every job of an installation."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.records = records.collection("job", Job, lambda job: f"{job.kind}/{job.name}")

    # --- for those who ask ------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a new job. Raises Taken when its name is in use among jobs of its kind."""
        newest = select(func.coalesce(func.max(leases.c.position), 0) + 1).scalar_subquery()
        queued = insert(leases).values(job=job.id, kind=job.kind, position=newest, state="queued")
        self.records.add(job, also=lambda connection: connection.execute(queued))

    def find(self, kind: str, identifier: str) -> Job | None:
        """A job by id, ARN or name."""
        job = self.records.get(identifier.rpartition("/")[2]) or self.records.named(f"{kind}/{identifier}")
        if job is None or job.kind != kind or (identifier.startswith("arn:") and job.arn != identifier):
            return None
        return job

    def all(self, kind: str) -> list[Job]:
        """Jobs of a kind, oldest first."""
        return [job for job in self.records.all() if job.kind == kind]

    def stop(self, job: Job) -> Job:
        """Ask a job to stop. One that has not begun stops at once. Raises Conflict when it is over."""

        def change(current: Job) -> Job:
            if current.status in ENDED:
                raise Conflict(f"The job {current.name} is {current.status}; only a job in progress can be stopped")
            return msgspec.structs.replace(current, status=STOPPING, modified_at=now())

        changed = self.records.change(job.id, change)
        if changed is None:
            raise Invalid(f"the job {job.name} is gone")
        with self._records.writing() as connection:
            connection.execute(update(leases).where(leases.c.job == job.id).values(wants_stop=1))
            unclaimed = connection.execute(
                delete(leases).where(leases.c.job == job.id, leases.c.state == "queued")
            ).rowcount
        if unclaimed:
            stopped = self.records.change(
                job.id,
                lambda current: msgspec.structs.replace(current, status=STOPPED, ended_at=now(), modified_at=now()),
            )
            assert stopped is not None
            return stopped
        return changed

    def events(self, job: str, after: int = 0, most: int = 1000) -> list[dict[str, Any]]:
        """A job's events in order, each with `number` and `at`, from the one after `after`."""
        query = select(events).where(events.c.job == job, events.c.number > after).order_by(events.c.number).limit(most)
        with self._records.reading() as connection:
            rows = connection.execute(query).all()
        return [
            {
                "number": row.number,
                "at": datetime.fromtimestamp(row.at, UTC).isoformat(),
                **msgspec.json.decode(row.body),
            }
            for row in rows
        ]

    def all_events(self, job: str) -> list[dict[str, Any]]:
        """All of a job's events."""
        found: list[dict[str, Any]] = []
        while more := self.events(job, found[-1]["number"] if found else 0):
            found += more
        return found

    def resume(self, job: Job) -> Job:
        """Queue a job again that was stopped or failed; its work goes on from what it kept. Raises Conflict."""

        def change(current: Job) -> Job:
            if current.status not in (STOPPED, FAILED):
                raise Conflict(f"The job {current.name} is {current.status}; only a stopped or failed one can go on")
            return msgspec.structs.replace(current, status=IN_PROGRESS, failure="", ended_at=None, modified_at=now())

        newest = select(func.coalesce(func.max(leases.c.position), 0) + 1).scalar_subquery()
        queued = insert(leases).values(job=job.id, kind=job.kind, position=newest, state="queued")

        def queue(connection: Connection) -> None:
            connection.execute(delete(leases).where(leases.c.job == job.id))
            connection.execute(queued)

        changed = self.records.change(job.id, change, also=queue)
        if changed is None:
            raise Invalid(f"the job {job.name} is gone")
        return changed

    # --- for workers ------------------------------------------------------------------------------------------------

    def claim(self, owner: str, lease_s: float = LEASE_S) -> Lease | None:
        """The oldest job that nobody holds, or None."""
        moment = now().timestamp()
        free = or_(leases.c.state == "queued", leases.c.until < moment)
        with self._records.writing() as connection:
            row = connection.execute(select(leases).where(free).order_by(leases.c.position).limit(1)).first()
            if row is None:
                return None
            lease = Lease(row.job, row.kind, owner, row.fence + 1)
            values = {"state": "running", "owner": owner, "fence": lease.fence, "until": moment + lease_s}
            connection.execute(update(leases).where(leases.c.job == row.job).values(**values))
            return lease

    def free_of_the_dead(self, host: str) -> None:
        """Let go of jobs whose worker on this host is no longer there, so that nobody waits for their leases to run out."""
        running = select(leases.c.job, leases.c.owner).where(leases.c.state == "running")
        with self._records.reading() as connection:
            rows = connection.execute(running.where(leases.c.owner.startswith(f"{host}:"))).all()
        for row in rows:
            if not _is_alive(int(row.owner.rpartition(":")[2])):
                same = (leases.c.job == row.job) & (leases.c.owner == row.owner)
                with self._records.writing() as connection:
                    connection.execute(update(leases).where(same).values(until=0.0))

    def renew(self, lease: Lease, lease_s: float = LEASE_S) -> None:
        """Keep a job. Raises Lost."""
        here = (leases.c.job == lease.job) & (leases.c.fence == lease.fence)
        with self._records.writing() as connection:
            kept = connection.execute(update(leases).where(here).values(until=now().timestamp() + lease_s)).rowcount
        if not kept:
            raise Lost(lease.job)

    def is_asked_to_stop(self, lease: Lease) -> bool:
        """Whether somebody asked this job to stop. Only reads, so that it may be asked often."""
        query = select(leases.c.wants_stop).where(leases.c.job == lease.job, leases.c.fence == lease.fence)
        with self._records.reading() as connection:
            return bool(connection.execute(query).scalar())

    def change(self, lease: Lease, change: Callable[[Job], Job]) -> Job:
        """Change the record of a job that one holds. Raises Lost."""
        self.renew(lease)
        changed = self.records.change(lease.job, lambda job: msgspec.structs.replace(change(job), modified_at=now()))
        if changed is None:
            raise Lost(lease.job)
        return changed

    def tell(self, lease: Lease, lines: list[dict[str, Any]]) -> None:
        """Add events. Raises Lost."""
        here = (leases.c.job == lease.job) & (leases.c.fence == lease.fence)
        with self._records.writing() as connection:
            if connection.execute(select(leases.c.job).where(here)).first() is None:
                raise Lost(lease.job)
            newest = select(func.coalesce(func.max(events.c.number), 0)).where(events.c.job == lease.job)
            number = connection.execute(newest).scalar_one()
            for line in lines:
                number += 1
                row = {"job": lease.job, "number": number, "at": now().timestamp(), "body": msgspec.json.encode(line)}
                connection.execute(insert(events).values(**row))

    def end(self, lease: Lease, status: str, failure: str = "") -> None:
        """The job is over. Raises Lost."""

        def finish(job: Job) -> Job:
            phases = {
                name: msgspec.structs.replace(phase, status=status, changed_at=now())
                if phase.status in (IN_PROGRESS, STOPPING)
                else phase
                for name, phase in job.phases.items()
            }
            return msgspec.structs.replace(
                job, status=status, failure=failure[:MOST_FAILURE], ended_at=now(), phases=phases
            )

        self.change(lease, finish)
        self.tell(lease, [{"kind": "ended", "status": status, "reason": failure}])
        self.forget(lease)

    def forget(self, lease: Lease) -> None:
        """Take a job that is over out of the queue."""
        with self._records.writing() as connection:
            connection.execute(delete(leases).where(leases.c.job == lease.job, leases.c.fence == lease.fence))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


__all__ = ["FAILED", "Jobs", "Lease", "Lost"]
