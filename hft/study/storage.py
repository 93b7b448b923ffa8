"""Where a study is kept: its address, Optuna's storage behind it, and the locks that go with it.

In: the text of `sweep.storage` and the study's folder. Out: an Address, which is safe to show,
store and send, because it holds no password: libpq takes that from the file that PGPASSFILE names,
or from the environment.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from hft.spec import did_you_mean
from hft.study.locks import CLIENT_OPTIONS, FileLocks, SessionLocks, flocked, no_answer
from hft.study.locks import Locks as Locks
from hft.study.locks import StorageError as StorageError
from hft.system.files import writable

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

FORMS = ("journal", "sqlite", "postgresql+psycopg://user@host/database", "sqlite:///path")
# What may follow the `?`: nothing in which a password could hide.
OPTIONS = (
    "application_name", "channel_binding", "connect_timeout", "gssencmode", "host", "hostaddr",
    "options", "passfile", "port", "sslcert", "sslkey", "sslmode", "sslrootcert",
    "target_session_attrs",
)  # fmt: skip

# By process too: a fork must not use its parent's connections.
_OPEN: dict[tuple[int, Address], BaseStorage] = {}


@dataclass(frozen=True)
class Address:
    """A study's storage; `url` is SQLAlchemy's, empty for a journal."""

    kind: str  # "journal", "sqlite" or "postgresql"
    url: str
    path: Path | None  # the file, except for postgresql
    folder: Path

    @property
    def text(self) -> str:
        """The text from which `read_address` makes an equal address, for the same folder."""
        # A file in the study's folder is kept as a word, so that the folder can move.
        ours = self.path in (self.folder / "journal.log", self.folder / "study.db")
        return self.kind if ours else self.url

    def exists(self) -> bool:
        """Whether there is something to open; PostgreSQL is asked by opening it."""
        return self.path is None or self.path.is_file()

    def open(self) -> BaseStorage:
        """Optuna's storage, made where it is missing; one per process and address, so that later
        calls cost nothing.
        """
        key = (os.getpid(), self)
        if key not in _OPEN:
            import optuna

            # Optuna writes its own lines to standard error, where the table of a sweep stays in
            # place.
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            _OPEN[key] = self._open()
        return _OPEN[key]

    def locks(self) -> Locks:
        return self._locks(self.folder.name)

    def _locks(self, study: str) -> Locks:
        if self.path is None:
            # `+psycopg` is SQLAlchemy's; psycopg itself does not know it.
            return SessionLocks(self.url.replace("+psycopg", "", 1), study)
        if self.path.parent == self.folder:
            return FileLocks(self.folder / "lease")
        # All folders of studies that use the file share its locks.
        return FileLocks(self.path.with_name(f"{self.path.name}-lease") / study)

    def _open(self) -> BaseStorage:
        if self.path is not None:
            with writable(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path is not None and self.kind == "journal":
            from hft.study.journal import open_journal

            return open_journal(self.path)
        if self.path is not None:
            with writable(self.path), flocked(self.path.with_name(f"{self.path.name}.lock")):
                # In seconds. After sqlite3's own 5 a worker that waits for other writers would
                # count as dead.
                return self._open_tables({"timeout": 60})
        # The lock is of no study: all studies of the database share Optuna's tables.
        with self._locks("").study():
            return self._open_tables(CLIENT_OPTIONS)

    def _open_tables(self, connect_args: dict[str, Any]) -> BaseStorage:
        """Call it under a lock: two processes that create Optuna's tables at once fail."""
        from optuna.storages import RDBStorage, get_storage
        from sqlalchemy.exc import SQLAlchemyError

        # A restarted server leaves dead connections in the pool, so each is tried before it is
        # used.
        engine = {"connect_args": connect_args, "pool_pre_ping": self.kind == "postgresql"}
        try:
            storage = RDBStorage(self.url, engine_kwargs=engine)
        except (SQLAlchemyError, RuntimeError) as error:
            raise no_answer(self.text, getattr(error, "orig", None) or error) from None
        self._explain_failures(storage.engine)
        # This adds Optuna's cache of ended trials, which every claim would read again without it.
        return get_storage(storage)

    def _explain_failures(self, engine: Any) -> None:
        """Makes a StorageError of a server that goes away later, whoever reads or writes then."""
        from sqlalchemy import event

        @event.listens_for(engine, "handle_error")
        def explain(context: Any) -> None:
            # A failed ping is no error: SQLAlchemy connects anew.
            if (context.is_disconnect or context.connection is None) and not context.is_pre_ping:
                raise no_answer(self.text, context.original_exception)


def read_address(text: str, folder: Path) -> Address:
    """The address that `sweep.storage` means for the study in `folder`; StorageError for what
    cannot be one.

    No message repeats a text in which a password may stand.
    """
    if text in ("journal", "sqlite"):
        path = folder.absolute() / ("journal.log" if text == "journal" else "study.db")
        return Address(
            text, f"sqlite:///{path}" if text == "sqlite" else "", path, folder.absolute()
        )
    dialect, separator, _ = text.partition("://")
    if separator and dialect == "sqlite":
        path = Path(text.removeprefix("sqlite:///"))
        # In memory every process would have a study of its own.
        if not text.startswith("sqlite:///") or path.name in ("", ":memory:") or "?" in text:
            raise StorageError(f"storage {text!r}: must name a file, such as sqlite:///studies.db")
        return Address("sqlite", f"sqlite:///{path.absolute()}", path.absolute(), folder.absolute())
    if separator and dialect in ("postgresql", "postgresql+psycopg"):
        return Address("postgresql", _postgresql(text), None, folder.absolute())
    shown = dialect if re.fullmatch(r"[A-Za-z][A-Za-z0-9+_-]{0,30}", dialect) else "(not shown)"
    hint = did_you_mean(shown, ["journal", "sqlite", "postgresql+psycopg"])
    raise StorageError(f"storage {shown}: no such kind{hint}; one of {', '.join(FORMS)}")


def _postgresql(text: str) -> str:
    """The URL in one spelling, without a password because one with it is refused."""
    parts = _split(text)
    if importlib.util.find_spec("psycopg") is None:
        raise StorageError(
            "storage postgresql: its driver is not installed; pip install 'psycopg[binary]'"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    # libpq takes a password in the query too, as `password` or `sslpassword`.
    secret = [name for name in options if "pass" in name.lower() and name != "passfile"]
    if parts.password or secret:
        raise StorageError(
            "storage postgresql: a password must not stand in the address, which is logged and "
            "stored; take it out and put a line host:port:database:user:password into a file of "
            "mode 600 that PGPASSFILE names"
        )
    for name in options:
        if name not in OPTIONS:
            hint = did_you_mean(name, list(OPTIONS))
            raise StorageError(
                f"storage postgresql: no such option{hint}; one of {', '.join(OPTIONS)}"
            )
    # `user:@host` is `user@host`, and addresses are compared as text.
    user, at, host = parts.netloc.rpartition("@")
    return (
        f"postgresql+psycopg://{user.removesuffix(':')}{at}{host}{parts.path}"
        + f"?{parts.query}" * bool(options)
    )


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        readable = parts.port is None or parts.port > 0
    except ValueError:
        readable = False
    # A password with a `/`, `?` or `#` in it moves the `@` out of its place.
    if (
        not readable
        or "@" in unquote(parts.path + parts.query)
        or parts.fragment
        or not parts.path.strip("/")
    ):
        raise StorageError(
            "storage postgresql: cannot be read (it is not repeated here, a password may stand in "
            "it); must be postgresql+psycopg://user@host:port/database, without a password"
        )
    return parts
