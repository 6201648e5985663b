"""Rendered rows, kept by what they were made from: a file is rendered once, and never taken for another.

The key is the hash of the file's lines, of the renderer (tokenizer, template, rendering code, stop tokens), the length allowed and
Outcrop's version. A file is there whole or not at all. What was not used for longest goes first when the folder is full.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import outcrop
from outcrop.datasets.prepare import render
from outcrop.datasets.report import Report
from outcrop.datasets.rows import Rows
from outcrop.rendering import Renderer

# Raise it when rows are laid out or rendered differently from before.
VERSION = 2
# What a killed process left unfinished goes after this.
STALE_S = 86_400


@dataclass(frozen=True)
class RowsCache:
    """A folder of rows; `most_bytes` 0 keeps nothing but what is in use."""

    folder: Path
    most_bytes: int

    def render(self, report: Report, renderer: Renderer, most_tokens: int, target: Path) -> Rows:
        """A checked file's rows, at `target` and mapped from there. Raises Invalid as `datasets.render` does."""
        kept = self.folder / f"{key_of(report, renderer, most_tokens)}.rows"
        target.unlink(missing_ok=True)
        if not _share(kept, target):
            unfinished = self.folder / f"{uuid.uuid4().hex}.unfinished"
            render(report, renderer, most_tokens).write(unfinished)
            _share(unfinished, target)
            unfinished.rename(kept)
        self._clear()
        return Rows.read(target)

    def _clear(self) -> None:
        """Remove what was not used for longest until the rest fits. Runs keep their own links."""
        found = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process clears, too
                found.append((path.stat(), path))
        held = 0
        for stat, path in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
            is_unfinished = path.suffix == ".unfinished"
            held += 0 if is_unfinished else stat.st_size
            if time.time() - stat.st_mtime > STALE_S if is_unfinished else held > self.most_bytes:
                path.unlink(missing_ok=True)


def _share(kept: Path, target: Path) -> bool:
    """Make the file appear at `target`, too; whether it was there. A link, or a copy where there can be none."""
    try:
        os.utime(kept)
        try:
            os.link(kept, target)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(kept, target)
    except FileNotFoundError:
        return False
    return True


def key_of(report: Report, renderer: Renderer, most_tokens: int) -> str:
    """What rows depend on, as one hash."""
    assert report.format is not None
    parts = [
        VERSION,
        outcrop.__version__,
        report.sha256,
        report.format.name,
        renderer.hash,
        sorted(renderer.stop_tokens),
        most_tokens,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
