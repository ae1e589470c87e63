"""Rows of the platform's tables, parsed cell by cell: a broken one costs its own row alone.

A driver or a column type that cannot make sense of one cell fails the whole query. So cells are
asked for as the database keeps them, times as text, and each is parsed here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.types import NullType

from zlh_dagster.core import times
from zlh_dagster.core.model import UNREADABLE
from zlh_dagster.schema.tables import UtcDateTime

_INT_BITS = 31
_SHOWN = 60
_AS_BYTES = partial(str, encoding="utf-8", errors="surrogateescape")

Columns = Sequence[sa.Column[Any]]


class _Unreadable(ValueError):
    """A cell that is not what its column holds; the message says what it should be."""


def select(columns: Columns) -> "sa.Select[Any]":
    """A query for these columns, as :func:`fetch` reads it."""
    return sa.select(*(_raw(column).label(column.name) for column in columns))


def fetch(engine: sa.Engine, query: "sa.Select[Any]", columns: Columns) -> list[dict[str, Any]]:
    """The rows of a query by column name, each with :data:`UNREADABLE` besides.

    Times come as ISO text in UTC and JSON as text. A cell that cannot be read is null, and
    :data:`UNREADABLE` says of its row which columns those are and why; it is null otherwise.

    Args:
        engine: The platform database.
        query: Made with :func:`select`.
        columns: The same columns.

    Raises:
        SQLAlchemyError: If the database cannot be read.
    """
    with _reading(engine) as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    parsers = [(column.name, _parser(column), bool(column.nullable)) for column in columns]
    for row in rows:
        problems = []
        for name, parse, nullable in parsers:
            cell = row[name]
            if cell is None and nullable:
                continue
            try:
                row[name] = parse(cell)
            except _Unreadable as error:
                row[name] = None
                problems.append(f"{name}: {error}")
        row[UNREADABLE] = "; ".join(problems) or None
    return rows


@contextmanager
def _reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection on which SQLite gives text that is not UTF-8 too, instead of failing."""
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            yield connection
            return
        raw: Any = connection.connection.dbapi_connection
        before, raw.text_factory = raw.text_factory, _AS_BYTES
        try:
            yield connection
        finally:
            raw.text_factory = before


def _raw(column: sa.Column[Any]) -> "sa.ColumnElement[Any]":
    if isinstance(column.type, UtcDateTime | sa.JSON):
        return sa.cast(column, sa.Text)
    return sa.type_coerce(column, NullType())


def _parser(column: sa.Column[Any]) -> Callable[[Any], Any]:
    if isinstance(column.type, UtcDateTime):
        return _time
    if isinstance(column.type, sa.Integer):
        return _integer
    return _json if isinstance(column.type, sa.JSON) else _text


def _time(cell: object) -> str:
    try:
        return cast(str, times.iso(times.stored(_text(cell))))
    except (ValueError, OverflowError):
        raise _Unreadable(f"{_shown(cell)} is not a time") from None


def _integer(cell: object) -> int:
    if type(cell) is not int or cell.bit_length() > _INT_BITS:
        raise _Unreadable(f"{_shown(cell)} is not an integer of 32 bits")
    return cell


def _text(cell: object) -> str:
    if not isinstance(cell, str) or not _is_unicode(cell):
        raise _Unreadable(f"{_shown(cell)} is not text")
    return cell


def _json(cell: object) -> str:
    """A payload may hold what is nobody's business: its value is not quoted."""
    if not isinstance(cell, str) or not _is_unicode(cell):
        raise _Unreadable("is not text")
    return cell


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(cell: object) -> str:
    return ascii(cell)[:_SHOWN]
