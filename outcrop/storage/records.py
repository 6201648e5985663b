"""Typed records by kind, id and name; and the answers already given to idempotency tokens."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from outcrop.storage.database import records, tokens


class Identified(Protocol):
    """Every record has an id, and a name that is unique within its kind."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Identified)


class Taken(Exception):
    """The id or the name is in use."""


class TokenReused(Exception):
    """The idempotency token came before with other parameters."""


class Records:
    """The database as typed collections."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that only reads; it waits for nobody."""
        with self._engine.connect().execution_options(reads=True) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction that ends with the block; writers take turns."""
        with self._engine.begin() as connection:
            yield connection

    def collection(self, kind: str, form: type[T], name_of: Callable[[T], str] | None = None) -> "Collection[T]":
        """The records of a kind, as values of that type. `name_of` is what must be unique; the name when left out."""
        return Collection(self, kind, form, name_of or (lambda value: value.name))

    def once(self, kind: str, token: str | None, request: object, act: Callable[[], str]) -> str:
        """What `act` answers; for a token that was seen with the same request, what it answered then.

        Raises TokenReused when the request differs.
        """
        if token is None:
            return act()
        digest = hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
        with self.reading() as connection:
            seen = connection.execute(
                select(tokens.c.digest, tokens.c.answer).where(tokens.c.kind == kind, tokens.c.token == token)
            ).first()
        if seen is not None:
            if seen.digest != digest:
                raise TokenReused(token)
            return str(seen.answer)
        answer = act()
        try:
            with self.writing() as connection:
                connection.execute(insert(tokens).values(kind=kind, token=token, digest=digest, answer=answer))
        except IntegrityError:
            return self.once(kind, token, request, act)
        return answer


class Collection(Generic[T]):
    """Records of one kind, oldest first."""

    def __init__(self, owner: Records, kind: str, form: type[T], name_of: Callable[[T], str]) -> None:
        self._owner, self._kind, self._name_of = owner, kind, name_of
        self._decoder = msgspec.json.Decoder(form)

    def add(self, value: T, also: Callable[[Connection], object] | None = None) -> None:
        """Keep a new record, `also` in the same transaction. Raises Taken when its id or name is in use."""
        newest = select(func.coalesce(func.max(records.c.position), 0) + 1).scalar_subquery()
        try:
            with self._owner.writing() as connection:
                connection.execute(
                    insert(records).values(
                        kind=self._kind,
                        id=value.id,
                        name=self._name_of(value),
                        position=newest,
                        body=msgspec.json.encode(value),
                    )
                )
                if also is not None:
                    also(connection)
        except IntegrityError:
            raise Taken(value.name) from None

    def get(self, identifier: str) -> T | None:
        """The record with that id."""
        return self._first(records.c.id == identifier)

    def named(self, name: str) -> T | None:
        """The record with that name, as `name_of` writes it."""
        return self._first(records.c.name == name)

    def _first(self, condition: object) -> T | None:
        query = select(records.c.body).where(records.c.kind == self._kind, condition)  # type: ignore[arg-type]
        with self._owner.reading() as connection:
            body = connection.execute(query).scalar()
        return None if body is None else self._decoder.decode(body)

    def all(self) -> list[T]:
        """Every record."""
        query = select(records.c.body).where(records.c.kind == self._kind).order_by(records.c.position)
        with self._owner.reading() as connection:
            return [self._decoder.decode(body) for (body,) in connection.execute(query)]

    def change(
        self, identifier: str, change: Callable[[T], T], also: Callable[[Connection], object] | None = None
    ) -> T | None:
        """Replace a record by what `change` makes of it, with nobody in between; None when there is none.

        `also` is done in the same transaction.
        Raises Taken when the new name is in use.
        """
        here = (records.c.kind == self._kind) & (records.c.id == identifier)
        try:
            with self._owner.writing() as connection:
                body = connection.execute(select(records.c.body).where(here)).scalar()
                if body is None:
                    return None
                value = change(self._decoder.decode(body))
                connection.execute(
                    update(records).where(here).values(name=self._name_of(value), body=msgspec.json.encode(value))
                )
                if also is not None:
                    also(connection)
                return value
        except IntegrityError:
            raise Taken(identifier) from None

    def remove(self, identifier: str) -> bool:
        """Forget a record; whether there was one."""
        with self._owner.writing() as connection:
            gone = connection.execute(delete(records).where(records.c.kind == self._kind, records.c.id == identifier))
            return bool(gone.rowcount)
