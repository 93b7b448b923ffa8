"""Who is alive and whose turn it is: kernel locks on one host, session advisory locks where
PostgreSQL joins several.

Both fall free when their holder's process ends, however it ends; no clock decides who is dead. To
add a kind of storage: a class with the methods of Locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from hft.spec import UserError
from hft.system.files import is_locked, locked, writable

RENEW_S = 3  # a holder checks this often whether its connection, and with it its lock, still lives
# A restarted server has forgotten every lock: nobody counts as dead in its first seconds.
GRACE_S = 10
# The server looks after 10 s of silence and gives up 15 s later: the locks of a node that lost
# power are free then.
# A site's own timeouts would end the wait for a lock, so they are off.
SERVER_OPTIONS = (
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 "
    "-c lock_timeout=0 -c statement_timeout=0"
)
CLIENT_OPTIONS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # In milliseconds: the client gives up as late as the server does, after 10 + 3 * 5 s.
    "tcp_user_timeout": 25_000,
}

log = logging.getLogger(__name__)


class StorageError(UserError):
    """A study's storage that cannot be named, reached or read."""


class Locks(Protocol):
    """`hold` and `is_held` take names such as `driver-<id>` and `trial-<number>`."""

    def study(self) -> contextlib.AbstractContextManager[None]:
        """One process at a time, of all that work on the study, is in here: it claims and settles.
        Not reentrant.
        """

    def hold(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Shows the others, for as long as it lasts, that this process is alive; waits while
        another one holds the name.
        """

    def is_held(self, name: str) -> bool: ...

    @property
    def renew_s(self) -> float:
        """How long a living holder may be without its lock, until it has taken it again."""


@contextlib.contextmanager
def flocked(path: Path, *, create: bool = True) -> Iterator[int]:
    """Waits for a kernel lock on `path` and yields the descriptor; the file stays."""
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        # `close` alone would leave the lock to a fork of this moment, which shares it.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


class FileLocks:
    """Lock files in one folder, for the processes of one host."""

    # The kernel takes no lock from a living process.
    renew_s = 0.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def study(self) -> Iterator[None]:
        # `locked` polls every 50 ms, too slow for the claims of short trials; this one blocks.
        with contextlib.ExitStack() as held:
            # `writable` covers the taking of the lock alone: an OSError of the block is about other
            # files.
            with writable(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(flocked(self.folder / "study.lock"))
            yield

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            with writable(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(self.folder / f"{name}.lock"))
            yield

    def is_held(self, name: str) -> bool:
        return is_locked(self.folder / f"{name}.lock")


class SessionLocks:
    """Session advisory locks: a connection each, so that they fall free with it.

    A holder that loses its connection (a server that restarts, a network that fails) notices within
    RENEW_S and takes its lock again; `study` connects anew for every use. Until a server is GRACE_S
    old `is_held` is true within `study`, and waits outside of it.
    """

    def __init__(self, conninfo: str, study: str) -> None:
        self.conninfo = conninfo
        self._study = study
        self._turn = threading.local()  # the connection of a `study` that this thread is in

    @property
    def renew_s(self) -> float:
        return RENEW_S + 1.0

    @contextlib.contextmanager
    def study(self) -> Iterator[None]:
        with self._connected() as connection:
            self._take(connection, "study")
            self._turn.connection = connection
            try:
                yield
            finally:
                self._turn.connection = None

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        connection = self._connect()
        try:
            self._take(connection, name)
        # A Ctrl-C ends the wait for the lock as well.
        except BaseException:
            connection.close()
            raise
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(connection, name, done), daemon=True)
        keeper.start()
        holder = os.getpid()
        try:
            yield
        finally:
            if os.getpid() == holder:  # a fork must not end its parent's session
                done.set()
                keeper.join()

    def is_held(self, name: str) -> bool:
        if getattr(self._turn, "connection", None) is not None:
            return self._look(self._turn.connection, name)
        with self._connected() as connection:
            while (left_s := self._grace_left_s(connection)) > 0:
                time.sleep(left_s)  # nobody waits for this process, as they do in a `study`
            return self._look(connection, name)

    def _take(self, connection: Any, name: str) -> None:
        self._ask(connection, "select pg_advisory_lock(%s)", [self._key(name)])

    def _look(self, connection: Any, name: str) -> bool:
        # pg_locks shows a key of 64 bits as two unsigned halves with objsubid 1. Advisory locks
        # belong to one database, so another one's of the same key is not ours.
        high, low = divmod(self._key(name) % 2**64, 2**32)
        seen = self._ask(
            connection,
            "select pg_postmaster_start_time() > now() - make_interval(secs => %s) or exists ("
            "select from pg_locks where locktype = 'advisory' and classid::bigint = %s"
            " and objid::bigint = %s and objsubid = 1 and granted"
            " and database = (select oid from pg_database where datname = current_database()))",
            [GRACE_S, high, low],
        )
        return bool(seen[0])

    def _grace_left_s(self, connection: Any) -> float:
        query = "select %s - extract(epoch from now() - pg_postmaster_start_time())"
        return float(self._ask(connection, query, [GRACE_S])[0])

    def _ask(self, connection: Any, query: str, values: list[Any]) -> tuple[Any, ...]:
        import psycopg

        try:
            return connection.execute(query, values).fetchone()
        except psycopg.Error as error:
            raise no_answer(self.conninfo, error) from None

    def _keep(self, connection: Any, name: str, done: threading.Event) -> None:
        """Holds on until `done`, through as many connections as it takes."""
        import psycopg

        held = True
        while not done.wait(RENEW_S):
            try:
                if connection.closed:
                    connection, held = self._connect(), False
                if not held:  # the server may not have missed the old session, which has the lock
                    # The call that waits would keep this thread from seeing `done`.
                    (held,) = connection.execute(
                        "select pg_try_advisory_lock(%s)", [self._key(name)]
                    ).fetchone()
                # A lost connection shows only when somebody uses it.
                connection.execute("select 1")
            except (psycopg.Error, StorageError):
                log.warning(
                    "lock %s of study %s: the database went away; taking it again",
                    name,
                    self._study,
                )
                connection.close()
        connection.close()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        connection = self._connect()
        try:
            yield connection
        finally:
            connection.close()

    def _connect(self) -> Any:
        import psycopg

        try:
            # Advisory locks belong to the session, so no transaction needs to stay open as long as
            # a sweep.
            return psycopg.connect(
                self.conninfo, autocommit=True, options=SERVER_OPTIONS, **CLIENT_OPTIONS
            )
        except psycopg.Error as error:
            raise no_answer(self.conninfo, error) from None

    def _key(self, name: str) -> int:
        # An advisory lock is a number of 64 bits, and all studies of a database share the numbers.
        digest = hashlib.sha256(f"hft\0{self._study}\0{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


def no_answer(address: str, error: BaseException) -> StorageError:
    reason = (str(error) or repr(error)).splitlines()[0]
    return StorageError(
        f"storage {address}: does not answer ({reason}); start the server, and the same command "
        "goes on, or mend the address; a password belongs in the file that PGPASSFILE names"
    )
