"""The tables, and how a database reaches their newest form.

SQLite for one machine; the statements are SQLAlchemy Core and mean the same on PostgreSQL.
"""

from pathlib import Path

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    select,
    update,
)

metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, nullable=False))

records = Table(
    "records", metadata,
    Column("kind", String(40), primary_key=True),
    Column("id", String(255), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("position", Integer, nullable=False, index=True),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("kind", "name"),
)  # fmt: skip

tokens = Table(
    "tokens", metadata,
    Column("kind", String(40), primary_key=True),
    Column("token", String(256), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("answer", String(2048), nullable=False),
)  # fmt: skip

leases = Table(
    "leases", metadata,
    Column("job", String(64), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("owner", String(120), nullable=False, default=""),
    Column("fence", Integer, nullable=False, default=0),
    Column("until", Float, nullable=False, default=0.0),
    Column("wants_stop", Integer, nullable=False, default=0),
)  # fmt: skip

events = Table(
    "events", metadata,
    Column("job", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("body", LargeBinary, nullable=False),
)  # fmt: skip

buckets = Table(
    "buckets", metadata,
    Column("name", String(63), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)  # fmt: skip

objects = Table(
    "objects", metadata,
    Column("bucket", String(63), primary_key=True),
    Column("key", String(1024), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("etag", String(64), nullable=False),
    Column("modified", Float, nullable=False),
    Column("file", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
)  # fmt: skip

uploads = Table(
    "uploads", metadata,
    Column("id", String(64), primary_key=True),
    Column("bucket", String(63), nullable=False),
    Column("key", String(1024), nullable=False),
    Column("begun", Float, nullable=False),
    Column("body", LargeBinary, nullable=False),
)  # fmt: skip

parts = Table(
    "parts", metadata,
    Column("upload", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("etag", String(64), nullable=False),
    Column("modified", Float, nullable=False),
    Column("file", String(64), nullable=False),
)  # fmt: skip


def _version_1(connection: Connection) -> None:
    metadata.create_all(connection)


def _version_2(connection: Connection) -> None:
    """Names of jobs are unique within their kind of job: the kind stands before them."""
    jobs = records.c.kind == "job"
    for row in connection.execute(select(records.c.id, records.c.name, records.c.body).where(jobs)).all():
        kind = msgspec.json.decode(row.body)["kind"]
        renamed = update(records).where(jobs, records.c.id == row.id).values(name=f"{kind}/{row.name}")
        connection.execute(renamed)


# Each entry brings the database one version further; new ones are added at the end and none is ever changed.
MIGRATIONS = (_version_1, _version_2)


def open_database(folder: Path) -> Engine:
    """The database in a folder, brought to the newest version. A newer one than ours is refused."""
    engine = create_engine(
        f"sqlite:///{folder / 'records.db'}", connect_args={"timeout": 30, "check_same_thread": False}, pool_size=80
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: object, _record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]  # transactions are begun below, not by the driver
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE: a transaction that reads and then writes must not find the database changed in between.
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if not connection.get_execution_options().get("reads") else "BEGIN"
        )

    with engine.begin() as connection:
        _migrate(connection)
    return engine


def _migrate(connection: Connection) -> None:
    schema_version.create(connection, checkfirst=True)
    version = connection.execute(select(schema_version.c.version)).scalar()
    if version is None:
        connection.execute(insert(schema_version).values(version=0))
        version = 0
    if version > len(MIGRATIONS):
        raise RuntimeError(f"the database has version {version}, this Outcrop knows {len(MIGRATIONS)}; use a newer one")
    for migration in MIGRATIONS[version:]:
        migration(connection)
    connection.execute(update(schema_version).values(version=len(MIGRATIONS)))
