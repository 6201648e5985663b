"""Accepted -> queued -> leased -> running -> ended; stop, progress, events.

In: a job's kind and request. Out: its record, its events, and a worker that runs each job in exactly one place at a
time. The room knows no domain: what a job does is a function that the worker is given.
"""

from outcrop.jobs.job import Job, Phase
from outcrop.jobs.queue import Jobs, Lost
from outcrop.jobs.worker import Tell, Work, work

__all__ = ["Job", "Jobs", "Lost", "Phase", "Tell", "Work", "work"]
