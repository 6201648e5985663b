"""Lines in S3 -> checked, described, split, rendered, laid out as rows.

In: an S3 URI and a base model's renderer. Out: everything that is wrong or odd about the file, by line and field, and rows of
token ids with what is learned of them. Nothing is ever cut to fit. The room knows no jobs and no torch.
"""

from outcrop.datasets.cache import RowsCache
from outcrop.datasets.preflight import Base, Files, Limits, Preflight, check, limits_of, preflight
from outcrop.datasets.prepare import render, split
from outcrop.datasets.report import Report
from outcrop.datasets.rows import Rows
from outcrop.datasets.source import Source, find, read_lines

__all__ = [
    "Base", "Files", "Limits", "Preflight", "Report", "Rows", "RowsCache", "Source", "check", "find", "limits_of", "preflight", "read_lines",
    "render", "split",
]  # fmt: skip
