"""Everything that an installation keeps, in one folder."""

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from outcrop.storage.database import open_database
from outcrop.storage.objects import Objects
from outcrop.storage.records import Records

HASHED_AT_ONCE = 1 << 22


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as sha256sum prints it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(HASHED_AT_ONCE):
            digest.update(data)
    return digest.hexdigest()


class Storage:
    """Opens or makes the folder.

    records.db   records, leases, events, the objects' index
    objects/     the objects' bytes
    receiving/   bodies that are still arriving; on the same disk, so that keeping one is a rename
    artifacts/   folders of weights
    runs/        working folders of jobs
    rows/        rendered training data, kept while there is room (datasets/cache.py)
    logs/        what workers and engines say
    journal/     invocation logs on their way to S3
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("objects", "receiving", "artifacts", "runs", "rows", "logs", "journal"):
            (folder / name).mkdir(exist_ok=True)
        self.receiving = folder / "receiving"
        engine = open_database(folder)
        self.records = Records(engine)
        self.objects = Objects(self.records, folder / "objects")

    def clean(self) -> None:
        """Remove what a killed process left half done. Only for the one process that serves the folder."""
        for path in self.receiving.iterdir():
            path.unlink()
        self.objects.clean()

    def run_folder(self, job: str) -> Path:
        """A job's working folder; made when it is asked for."""
        path = self.folder / "runs" / job
        path.mkdir(exist_ok=True)
        return path

    def artifact(self, identifier: str) -> Path:
        """Where an artifact's folder lies."""
        return self.folder / "artifacts" / identifier

    def keep_artifact(self, identifier: str, source: Path) -> Path:
        """Copy a folder of files in, whole or not at all; answers with where it lies."""
        unfinished = self.folder / "artifacts" / f"unfinished-{uuid.uuid4().hex}"
        shutil.copytree(source, unfinished)
        for path in unfinished.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        target = self.artifact(identifier)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        return target

    def drop_artifact(self, identifier: str) -> None:
        """Remove an artifact's folder, if there is one."""
        shutil.rmtree(self.artifact(identifier), ignore_errors=True)
