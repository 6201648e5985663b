import threading
from pathlib import Path

import msgspec
import pytest

from outcrop.storage import Storage, Taken
from outcrop.storage.records import TokenReused


class Thing(msgspec.Struct, frozen=True):
    id: str
    name: str
    count: int = 0


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path / "home")
    storage.objects.make_bucket("b", {})
    return storage


def test_a_record_is_there_after_a_restart(storage: Storage) -> None:
    storage.records.collection("thing", Thing).add(Thing("1", "one"))
    again = Storage(storage.folder).records.collection("thing", Thing)
    assert again.get("1") == again.named("one") == Thing("1", "one")


def test_a_name_is_unique_within_its_kind(storage: Storage) -> None:
    things = storage.records.collection("thing", Thing)
    things.add(Thing("1", "one"))
    with pytest.raises(Taken):
        things.add(Thing("2", "one"))
    storage.records.collection("other", Thing).add(Thing("2", "one"))


def test_a_database_of_the_first_version_is_brought_forward(storage: Storage) -> None:
    """Jobs had one space of names for all kinds."""
    from sqlalchemy import update

    from outcrop.storage.database import records, schema_version

    job = {"id": "1", "name": "one", "kind": "batch"}
    with storage.records.writing() as connection:
        connection.execute(
            records.insert().values(kind="job", id="1", name="one", position=1, body=msgspec.json.encode(job))
        )
        connection.execute(update(schema_version).values(version=1))
    again = Storage(storage.folder).records.collection("job", dict[str, str])
    assert again.named("batch/one") == job
    assert again.named("one") is None


def test_changes_from_many_threads_are_all_kept(storage: Storage) -> None:
    things = storage.records.collection("thing", Thing)
    things.add(Thing("1", "one"))

    def count() -> None:
        for _ in range(20):
            things.change("1", lambda thing: msgspec.structs.replace(thing, count=thing.count + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = things.get("1")
    assert found is not None
    assert found.count == 80


def test_a_token_answers_as_before_and_refuses_other_parameters(storage: Storage) -> None:
    answers = iter(["first", "second"])
    assert storage.records.once("k", "t", {"a": 1}, lambda: next(answers)) == "first"
    assert storage.records.once("k", "t", {"a": 1}, lambda: next(answers)) == "first"
    with pytest.raises(TokenReused):
        storage.records.once("k", "t", {"a": 2}, lambda: next(answers))


def test_an_object_that_is_being_read_stays_whole_while_it_is_replaced(storage: Storage) -> None:
    storage.objects.put_bytes("b", "key", b"old" * 1000, "text/plain")
    opened = storage.objects.open("b", "key")
    assert opened is not None
    storage.objects.put_bytes("b", "key", b"new", "text/plain")
    with opened[1] as file:
        assert file.read() == b"old" * 1000
    found = storage.objects.get("b", "key")
    assert found is not None
    assert found.path.read_bytes() == b"new"


def test_a_write_that_is_refused_leaves_the_old_object_and_no_litter(storage: Storage) -> None:
    storage.objects.put_bytes("b", "key", b"old", "text/plain")

    def refuse(_: object) -> None:
        raise ValueError

    file = storage.objects.new_file([b"new"])
    with pytest.raises(ValueError):
        storage.objects.put("b", "key", file, "etag", {}, refuse)
    found = storage.objects.get("b", "key")
    assert found is not None
    assert found.path.read_bytes() == b"old"
    assert len(list((storage.folder / "objects").iterdir())) == 1


def test_what_a_killed_process_left_is_cleaned_up(storage: Storage) -> None:
    storage.objects.put_bytes("b", "key", b"kept", "text/plain")
    storage.objects.new_file([b"never put"])
    (storage.receiving / "receiving-1").write_bytes(b"half a body")
    Storage(storage.folder).clean()
    assert len(list((storage.folder / "objects").iterdir())) == 1
    assert not list(storage.receiving.iterdir())


def test_keys_come_in_the_order_of_their_bytes(storage: Storage) -> None:
    for key in ("b", "a/2", "a/1", "ä", "Z", "a"):
        storage.objects.put_bytes("b", key, b"", "text/plain")
    assert [stored.key for stored in storage.objects.keys("b")] == ["Z", "a", "a/1", "a/2", "b", "ä"]
    assert [stored.key for stored in storage.objects.keys("b", prefix="a/")] == ["a/1", "a/2"]


def test_a_newer_database_is_refused(storage: Storage) -> None:
    with storage.records.writing() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version = 99")
    with pytest.raises(RuntimeError, match="version 99"):
        Storage(storage.folder)
