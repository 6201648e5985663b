"""Lines in S3 -> checked, split, rendered, laid out as rows.

In: an S3 URI and a base model's renderer. Out: rows of token ids with what is learned of them, or a refusal that names
file, line and field of everything that is wrong. Nothing is ever cut to fit. The room knows no jobs and no torch.
"""

from outcrop.datasets.cache import RowsCache
from outcrop.datasets.prepare import render, split
from outcrop.datasets.report import Report, check
from outcrop.datasets.rows import Rows
from outcrop.datasets.source import Source, find, read_lines

__all__ = ["Report", "Rows", "RowsCache", "Source", "check", "find", "read_lines", "render", "split"]
