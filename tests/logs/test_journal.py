"""The journal and the delivery: whole lines, once, also when a process died in between."""

import gzip
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outcrop.errors import OutcropError
from outcrop.logs import Entry, Logged, Logs, read_logs
from outcrop.logs.journal import Head, Journal, head_of, lines_of
from outcrop.storage import Storage

AT = datetime(2026, 11, 25, 10, 30, tzinfo=UTC)


def entry(number: int, **more: object) -> Entry:
    return Entry(
        AT,
        "123456789012",
        "arn:aws:iam::123456789012:root",
        "us-east-1",
        f"r{number}",
        "Converse",
        "m",
        {"n": number},
        **{"output_body": {"o": number}, **more},
    )  # type: ignore[arg-type]


def logs(storage: Storage, bucket: str = "audit") -> Logs:
    storage.objects.make_bucket("audit", {})
    made = Logs(storage, "123456789012", 1000)
    made.configure({"s3Config": {"bucketName": bucket, "keyPrefix": "p"}})
    return made


def delivered(storage: Storage) -> list[str]:
    return [one.request_id for one in read_logs(storage.objects, "audit", "p/") if isinstance(one, Logged)]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append(Head("b", ""), "us-east-1", "2026/11/25/10", b"{%d}" % number)
    (path,) = tmp_path.glob("*.open")
    with path.open("ab") as file:
        file.write(b"us-east-1\t2026")
    journal.take_up()
    (closed,) = journal.closed()
    assert head_of(closed) == Head("b", "")
    assert [line for *_, line in lines_of(closed)] == [b"{0}", b"{1}", b"{2}"]


def test_what_a_dead_process_left_is_delivered_once(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    first = logs(storage)
    for number in range(5):
        first.write(entry(number))
    (tmp_path / "journal" / "0-torn.open").write_bytes(b'{"bucket"')
    second = Logs(storage, "123456789012", 1000)
    second.start()
    second.close()
    assert delivered(storage) == [f"r{number}" for number in range(5)]
    assert not list((tmp_path / "journal").iterdir())


def test_a_file_that_is_delivered_twice_leaves_its_records_once(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    writing = logs(storage)
    writing.write(entry(1))
    writing._journal.close()
    (path,) = writing._journal.closed()
    kept = path.read_bytes()
    assert writing._deliver()
    path.write_bytes(kept)  # as if the process had died before it removed the file
    assert writing._deliver()
    assert delivered(storage) == ["r1"]


def test_records_wait_while_their_bucket_is_gone(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    writing = logs(storage, "later")
    writing.write(entry(1))
    writing._journal.close()
    assert not writing._deliver()
    storage.objects.make_bucket("later", {})
    assert writing._deliver()
    assert [one.request_id for one in read_logs(storage.objects, "later", "") if isinstance(one, Logged)] == ["r1"]


def test_a_call_that_cannot_be_logged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = logs(Storage(tmp_path))

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(writing._journal, "append", full)
    with pytest.raises(OutcropError, match="cannot be logged, so it is not answered: No space left"):
        writing.write(entry(1))


def test_large_bodies_come_back_whole(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    writing = logs(storage)
    writing.write(entry(1, output_body={"text": "x" * 150_000}))
    writing._journal.close()
    writing._deliver()
    (one,) = [one for one in read_logs(storage.objects, "audit", "p/") if isinstance(one, Logged)]
    assert one.output_body == {"text": "x" * 150_000}
    apart = [stored for stored in storage.objects.keys("audit") if "/data/" in stored.key]
    assert len(apart) == 1
    assert b"xxx" in gzip.decompress(apart[0].path.read_bytes())


def test_a_damaged_file_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    writing = logs(storage)
    writing.write(entry(1))
    writing._journal.close()
    writing._deliver()
    storage.objects.put_bytes("audit", "p/a.json.gz", b"no gzip", "application/json")
    storage.objects.put_bytes("audit", "p/b.jsonl", b'{"other": 1}\n', "application/json")
    told = [one for one in read_logs(storage.objects, "audit", "p/") if isinstance(one, str)]
    assert len(told) == 2
    assert "cannot be read" in told[0] or "cannot be read" in told[1]
    assert delivered(storage) == ["r1"]


def test_a_bucket_that_is_gone_holds_up_no_other(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    writing = logs(storage, "gone")
    writing.write(entry(1))
    writing._journal.close()
    writing.configure({"s3Config": {"bucketName": "audit", "keyPrefix": "p"}})
    writing.write(entry(2))
    writing._journal.close()
    assert not writing._deliver()
    assert delivered(storage) == ["r2"]


def test_a_prefix_called_data_hides_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    writing = logs(storage)
    writing.configure({"s3Config": {"bucketName": "audit", "keyPrefix": "team/data"}})
    writing.write(entry(1))
    writing._journal.close()
    writing._deliver()
    assert [one.request_id for one in read_logs(storage.objects, "audit", "team/") if isinstance(one, Logged)] == ["r1"]


def test_a_write_that_fails_half_way_spoils_no_other_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.append(Head("b", ""), "us-east-1", "h", b"{1}")
    real = os.write

    def short(file: int, data: bytes) -> int:
        real(file, bytes(data)[:4])
        raise OSError("No space left on device")

    monkeypatch.setattr("outcrop.logs.journal.os.write", short)
    with pytest.raises(OSError, match="No space"):
        journal.append(Head("b", ""), "us-east-1", "h", b"{2}")
    monkeypatch.undo()
    journal.append(Head("b", ""), "us-east-1", "h", b"{3}")
    journal.close()
    assert [line for *_, line in lines_of(journal.closed()[0])] == [b"{1}", b"{3}"]
