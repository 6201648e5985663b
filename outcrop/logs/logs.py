"""Where entries go, and the thread that brings them there."""

import gzip
import logging
import threading
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from outcrop.clock import now
from outcrop.errors import OutcropError
from outcrop.logs.entry import Entry
from outcrop.logs.journal import Head, Journal, head_of, lines_of
from outcrop.storage import Storage

log = logging.getLogger("outcrop.logs")

# AWS puts bodies above this into objects of their own (user guide).
MOST_BODY_BYTES = 100_000
FOLDER = "AWSLogs/{account}/BedrockModelInvocationLogs/{region}/{hour}/"
CHECKED_EVERY_S = 0.5
# zlib works beside the interpreter on pieces of this size, at its quickest: what is saved goes to the answers.
PACKED, PACKED_AT_ONCE = 1, 1 << 18
# A bucket that is gone is asked for again after this.
TRIED_AGAIN_S = 10.0


class Configuration(msgspec.Struct, frozen=True):
    """What a client has put; the installation has one or none."""

    logging_config: dict[str, Any]
    id: str = "configuration"
    name: str = "configuration"


class Logs:
    """The invocation log of an installation. Configuring works anywhere; only the process that serves writes."""

    def __init__(self, storage: Storage, account: str, every_s: float) -> None:
        self._storage, self._account, self._every_s = storage, account, every_s
        self._records = storage.records.collection("invocation-logging", Configuration)
        self._journal = Journal(storage.folder / "journal")
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        found = self._records.get("configuration")
        self._config = found.logging_config if found else None

    # --- configuring ------------------------------------------------------------------------------------------------

    @property
    def configuration(self) -> dict[str, Any] | None:
        """The loggingConfig in force."""
        return self._config

    def configure(self, config: dict[str, Any] | None) -> None:
        """Put a loggingConfig in the place of the present one, or None to log no more.

        What was logged until now still goes where it was to go.
        """
        self._records.remove("configuration")
        if config is not None:
            self._records.add(Configuration(config))
        self._config = config

    # --- writing ----------------------------------------------------------------------------------------------------

    def wants(self, kind: str) -> bool:
        """Whether calls of a kind, "text" or "embedding", are to be logged."""
        return self._config is not None and self._config.get(f"{kind}DataDeliveryEnabled", True)

    def write(self, entry: Entry) -> None:
        """Keep an entry; when this returns its record survives the end of this process.

        Raises OutcropError when it cannot be kept: a call that is to be logged is not answered without its record.
        """
        config = self._config
        if config is None:
            return
        place = config["s3Config"]
        head = Head(place["bucketName"], place.get("keyPrefix", ""))
        try:
            self._journal.append(head, entry.region, f"{entry.at:%Y/%m/%d/%H}", entry.encode())
        except OSError as error:
            raise OutcropError(f"the call cannot be logged, so it is not answered: {error}") from None

    # --- delivering -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to deliver, first what a killed process left behind."""
        self._journal.take_up()
        self._thread = threading.Thread(target=self._deliver_always, name="logs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Deliver what there is, and end."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._journal.close()
            self._deliver()

    def _deliver_always(self) -> None:
        wait_s = CHECKED_EVERY_S
        while not self._closing.wait(wait_s):
            self._journal.close(older_than_s=self._every_s)
            wait_s = CHECKED_EVERY_S if self._deliver() else TRIED_AGAIN_S

    def _deliver(self) -> bool:
        """Bring closed files into S3; whether none is left. One that cannot be delivered stays, and holds up no other."""
        is_done = True
        for path in self._journal.closed():
            try:
                head = head_of(path)
                if head is not None and self._storage.objects.bucket(head.bucket) is None:
                    raise FileNotFoundError(f"there is no bucket {head.bucket}")
                if head is not None:
                    self._pack(path, head)
            except Exception:  # an edge: whatever it was, the other files are brought, and this one is tried again
                log.exception("invocation logs wait in %s", path)
                is_done = False
                continue
            path.unlink()
        return is_done

    def _pack(self, path: Path, head: Head) -> None:
        """One gzipped object for each region and hour. Its key follows from the file's name, so that a file that is
        delivered twice, because a process died in between, leaves its records once."""
        packed: dict[tuple[str, str], gzip.GzipFile] = {}
        parts: dict[tuple[str, str], Path] = {}
        waiting: dict[tuple[str, str], bytearray] = {}
        stamp, _, name = path.stem.partition("-")
        moment = datetime.fromtimestamp(int(stamp) / 1e9, tz=now().tzinfo)
        try:
            for region, hour, line in lines_of(path):
                place = (region, hour)
                if place not in packed:
                    parts[place] = self._storage.receiving / f"logs-{len(parts)}-{path.stem}"
                    packed[place] = gzip.GzipFile(parts[place], "wb", compresslevel=PACKED, mtime=0)
                    waiting[place] = bytearray()
                folder = self._folder(head, region, hour)
                waiting[place] += self._apart(head, folder, line) if len(line) > MOST_BODY_BYTES else line
                waiting[place] += b"\n"
                if len(waiting[place]) > PACKED_AT_ONCE:
                    packed[place].write(waiting[place])
                    waiting[place].clear()
            for place, file in packed.items():
                file.write(waiting[place])
                file.close()
                key = f"{self._folder(head, *place)}{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}Z_{name}.json.gz"
                with parts[place].open("rb") as finished:
                    self._put(head.bucket, key, iter(lambda file=finished: file.read(1 << 20), b""))  # type: ignore[misc]
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)

    def _apart(self, head: Head, folder: str, line: bytes) -> bytes:
        """A line whose large bodies are in objects of their own, named by its request."""
        record = msgspec.json.decode(line)
        for side in ("input", "output"):
            part = record.get(side, {})
            body = msgspec.json.encode(part.get(f"{side}BodyJson"))
            if len(body) > MOST_BODY_BYTES:
                key = f"{folder}data/{record['requestId']}_{side}.json.gz"
                self._put(head.bucket, key, [gzip.compress(body, mtime=0)])
                del part[f"{side}BodyJson"]
                part[f"{side}BodyS3Path"] = f"s3://{head.bucket}/{key}"
        return msgspec.json.encode(record)

    def _folder(self, head: Head, region: str, hour: str) -> str:
        prefix = f"{head.prefix.strip('/')}/" if head.prefix.strip("/") else ""
        return prefix + FOLDER.format(account=self._account, region=region, hour=hour)

    def _put(self, bucket: str, key: str, chunks: Iterable[bytes]) -> None:
        attributes = {"ContentType": "application/json", "ContentEncoding": "gzip"}
        self._storage.objects.put_chunks(bucket, key, chunks, attributes)
