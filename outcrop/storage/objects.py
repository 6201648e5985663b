"""Objects in buckets on local disk.

The bytes lie in files with names of our own; the index is in the database. Putting an object is: the file is whole and
on the disk, then one transaction makes it visible. So a key shows the old bytes or the new ones, never half of either,
and a file without an entry is only litter.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from outcrop.clock import now
from outcrop.storage.database import buckets, objects, parts, uploads
from outcrop.storage.records import Records

Attributes = dict[str, Any]


@dataclass(frozen=True)
class StoredObject:
    """An object's entry; `attributes` is what its writer gave along (content type, metadata, ...)."""

    bucket: str
    key: str
    size: int
    etag: str
    modified: datetime
    path: Path
    attributes: Attributes


@dataclass(frozen=True)
class Upload:
    """A multipart upload that is under way."""

    id: str
    bucket: str
    key: str
    begun: datetime
    attributes: Attributes


@dataclass(frozen=True)
class Part:
    """A part of an upload."""

    number: int
    size: int
    etag: str
    modified: datetime


class Objects:
    """The object store. Bucket and key are any text; callers check names."""

    def __init__(self, records: Records, folder: Path) -> None:
        self._records, self._folder = records, folder

    # --- buckets ---------------------------------------------------------------------------------------------------

    def make_bucket(self, name: str, attributes: Attributes) -> bool:
        """Whether the bucket was made; False when it exists."""
        with self._records.writing() as connection:
            if connection.execute(select(buckets.c.name).where(buckets.c.name == name)).first():
                return False
            connection.execute(insert(buckets).values(name=name, body=msgspec.json.encode(attributes)))
            return True

    def bucket(self, name: str) -> Attributes | None:
        """A bucket's attributes, or None when there is none."""
        with self._records.reading() as connection:
            body = connection.execute(select(buckets.c.body).where(buckets.c.name == name)).scalar()
        return None if body is None else msgspec.json.decode(body)

    def buckets(self) -> dict[str, Attributes]:
        """All buckets by name."""
        with self._records.reading() as connection:
            rows = connection.execute(select(buckets).order_by(buckets.c.name)).all()
        return {row.name: msgspec.json.decode(row.body) for row in rows}

    def change_bucket(self, name: str, change: Callable[[Attributes], Attributes]) -> None:
        """Replace a bucket's attributes."""
        with self._records.writing() as connection:
            body = connection.execute(select(buckets.c.body).where(buckets.c.name == name)).scalar_one()
            changed = msgspec.json.encode(change(msgspec.json.decode(body)))
            connection.execute(update(buckets).where(buckets.c.name == name).values(body=changed))

    def drop_bucket(self, name: str) -> bool:
        """Whether the bucket was removed; False when it holds objects."""
        with self._records.writing() as connection:
            if connection.execute(select(objects.c.key).where(objects.c.bucket == name).limit(1)).first():
                return False
            connection.execute(delete(buckets).where(buckets.c.name == name))
            return True

    # --- objects ---------------------------------------------------------------------------------------------------

    def new_file(self, chunks: Iterable[bytes]) -> Path:
        """Bytes as a file on the store's disk, synced, not yet visible under any key."""
        path = self._folder / f"new-{uuid.uuid4().hex}"
        with path.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return path

    def put(
        self,
        bucket: str,
        key: str,
        file: Path,
        etag: str,
        attributes: Attributes,
        condition: Callable[[StoredObject | None], None] | None = None,
    ) -> StoredObject:
        """Make a file, synced and on the store's disk, the object's bytes; the file is taken.

        `condition` sees the present object inside the transaction and raises to refuse.
        """
        name = uuid.uuid4().hex
        target = self._folder / name
        size = file.stat().st_size
        file.rename(target)
        _sync_folder(self._folder)
        values = {"size": size, "etag": etag, "modified": now().timestamp(), "file": name}
        try:
            with self._records.writing() as connection:
                present = self._find(connection, bucket, key)
                if condition is not None:
                    condition(present)
                row = {**values, "bucket": bucket, "key": key, "body": msgspec.json.encode(attributes)}
                if present is None:
                    connection.execute(insert(objects).values(**row))
                else:
                    connection.execute(_at(update(objects), bucket, key).values(**row))
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        if present is not None:
            present.path.unlink(missing_ok=True)
        stored = self.get(bucket, key)
        assert stored is not None
        return stored

    def put_bytes(self, bucket: str, key: str, data: bytes, content_type: str) -> StoredObject:
        """A small object in one call."""
        return self.put_chunks(bucket, key, [data], {"ContentType": content_type})

    def put_chunks(self, bucket: str, key: str, chunks: Iterable[bytes], attributes: Attributes) -> StoredObject:
        """An object of any size, from its pieces."""
        digest = hashlib.md5(usedforsecurity=False)

        def hashed() -> Iterator[bytes]:
            for chunk in chunks:
                digest.update(chunk)
                yield chunk

        file = self.new_file(hashed())
        return self.put(bucket, key, file, digest.hexdigest(), attributes)

    def get(self, bucket: str, key: str) -> StoredObject | None:
        """An object's entry."""
        with self._records.reading() as connection:
            return self._find(connection, bucket, key)

    def open(self, bucket: str, key: str) -> tuple[StoredObject, Any] | None:
        """An object's entry and its open file, which stays readable when the object is replaced meanwhile."""
        for _ in range(5):  # the file may go between the look-up and the opening when the object is being replaced
            found = self.get(bucket, key)
            if found is None:
                return None
            try:
                return found, found.path.open("rb")
            except FileNotFoundError:
                continue
        return None

    def _find(self, connection: Connection, bucket: str, key: str) -> StoredObject | None:
        row = connection.execute(select(objects).where(objects.c.bucket == bucket, objects.c.key == key)).first()
        return None if row is None else self._entry(row)

    def _entry(self, row: Any) -> StoredObject:
        modified = datetime.fromtimestamp(row.modified, UTC)
        attributes = msgspec.json.decode(row.body)
        return StoredObject(row.bucket, row.key, row.size, row.etag, modified, self._folder / row.file, attributes)

    def remove(self, bucket: str, keys: Iterable[str]) -> None:
        """Remove objects; keys without one are passed over."""
        with self._records.writing() as connection:
            gone = [found for key in keys if (found := self._find(connection, bucket, key)) is not None]
            for found in gone:
                connection.execute(_at(delete(objects), bucket, found.key))
        for found in gone:
            found.path.unlink(missing_ok=True)

    def keys(self, bucket: str, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """Objects in the order of their keys' UTF-8 bytes, from `prefix`, after the key `after`."""
        batch = 1000
        while True:
            query = (
                select(objects)
                .where(objects.c.bucket == bucket, objects.c.key > after, objects.c.key >= prefix)
                .order_by(objects.c.key)
                .limit(batch)
            )
            with self._records.reading() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                if not row.key.startswith(prefix):
                    return
                yield self._entry(row)
            if len(rows) < batch:
                return
            after = rows[-1].key

    # --- multipart -------------------------------------------------------------------------------------------------

    def begin_upload(self, bucket: str, key: str, attributes: Attributes) -> Upload:
        """A new multipart upload."""
        upload = Upload(uuid.uuid4().hex, bucket, key, now(), attributes)
        with self._records.writing() as connection:
            row = {"id": upload.id, "bucket": bucket, "key": key, "begun": upload.begun.timestamp()}
            connection.execute(insert(uploads).values(**row, body=msgspec.json.encode(attributes)))
        return upload

    def uploads(self, bucket: str) -> list[Upload]:
        """The bucket's uploads under way."""
        query = select(uploads).where(uploads.c.bucket == bucket).order_by(uploads.c.key, uploads.c.begun)
        with self._records.reading() as connection:
            return [_upload(row) for row in connection.execute(query)]

    def upload(self, identifier: str) -> Upload | None:
        """An upload under way."""
        with self._records.reading() as connection:
            row = connection.execute(select(uploads).where(uploads.c.id == identifier)).first()
        return None if row is None else _upload(row)

    def put_part(self, upload: str, number: int, file: Path, etag: str) -> Part:
        """Keep a part; one of the same number is replaced."""
        name = f"part-{uuid.uuid4().hex}"
        size = file.stat().st_size
        file.rename(self._folder / name)
        here = (parts.c.upload == upload) & (parts.c.number == number)
        with self._records.writing() as connection:
            old = connection.execute(select(parts.c.file).where(here)).scalar()
            connection.execute(delete(parts).where(here))
            row = {"upload": upload, "number": number, "size": size, "etag": etag, "modified": now().timestamp()}
            connection.execute(insert(parts).values(**row, file=name))
        if old:
            (self._folder / old).unlink(missing_ok=True)
        return Part(number, size, etag, now())

    def parts(self, upload: str) -> list[Part]:
        """An upload's parts by number."""
        query = select(parts).where(parts.c.upload == upload).order_by(parts.c.number)
        with self._records.reading() as connection:
            rows = connection.execute(query).all()
        return [Part(row.number, row.size, row.etag, datetime.fromtimestamp(row.modified, UTC)) for row in rows]

    def join_parts(self, upload: str, numbers: list[int]) -> Path:
        """The parts in that order as one synced file, to be put."""
        query = select(parts.c.number, parts.c.file).where(parts.c.upload == upload)
        with self._records.reading() as connection:
            files = {row.number: self._folder / row.file for row in connection.execute(query)}

        def chunks() -> Iterator[bytes]:
            for number in numbers:
                with files[number].open("rb") as file:
                    while chunk := file.read(1 << 20):
                        yield chunk

        return self.new_file(chunks())

    def end_upload(self, upload: str) -> None:
        """Forget an upload and its parts."""
        with self._records.writing() as connection:
            files = connection.execute(select(parts.c.file).where(parts.c.upload == upload)).scalars().all()
            connection.execute(delete(parts).where(parts.c.upload == upload))
            connection.execute(delete(uploads).where(uploads.c.id == upload))
        for name in files:
            (self._folder / name).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove files that no entry names."""
        with self._records.reading() as connection:
            known = set(connection.execute(select(objects.c.file)).scalars())
            known |= set(connection.execute(select(parts.c.file)).scalars())
        for path in self._folder.iterdir():
            if path.name not in known:
                path.unlink()


def _at(statement: Any, bucket: str, key: str) -> Any:
    return statement.where(objects.c.bucket == bucket, objects.c.key == key)


def _upload(row: Any) -> Upload:
    begun = datetime.fromtimestamp(row.begun, UTC)
    return Upload(row.id, row.bucket, row.key, begun, msgspec.json.decode(row.body))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
