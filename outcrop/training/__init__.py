"""Packed tokens + base weights -> adapter or weights.

In: a directory that holds plan.json (what to do) and rows (what to learn). Out, in the same directory:
progress.jsonl while it runs, checkpoints/, and result.json at the end. The room runs in a child process
(`python -m outcrop.training DIRECTORY`) that can be stopped or killed at any time; it knows no S3, no records,
no HTTP and no environment.

`Plan`, `Result` and the rows' file can be used without torch: they are what the caller reads and writes.
"""

from outcrop.training.plan import Plan, Result, Settings

__all__ = ["Plan", "Result", "Settings"]
