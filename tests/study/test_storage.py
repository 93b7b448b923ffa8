"""Addresses that keep no secret, a journal that survives kill -9 and torn lines, locks that die
with their holder.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys

import optuna
import pytest

from hft.study.journal import cut_torn_tail
from hft.study.optuna_internals import study_id
from hft.study.storage import StorageError, read_address
from tests.study.claimers import ROOT

PG = "postgresql+psycopg://sweeper@db.example.org:5433/sweeps"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sweeps" / "maker_v1"


# Addresses


@pytest.mark.parametrize(
    ("text", "kind", "kept"),
    [
        ("journal", "journal", "journal"),
        ("sqlite", "sqlite", "sqlite"),
        (PG, "postgresql", PG),
        ("postgresql://sweeper@db/sweeps", "postgresql", "postgresql+psycopg://sweeper@db/sweeps"),
        ("postgresql://sweeper:@db/sweeps", "postgresql", "postgresql+psycopg://sweeper@db/sweeps"),
        (
            f"{PG}?sslmode=require&passfile=/etc/p",
            "postgresql",
            f"{PG}?sslmode=require&passfile=/etc/p",
        ),
        (
            "postgresql+psycopg:///sweeps?host=/run/pg",
            "postgresql",
            "postgresql+psycopg:///sweeps?host=/run/pg",
        ),
    ],
)
def test_an_address_is_kept_as_text(folder, text, kind, kept):
    address = read_address(text, folder)
    assert (address.kind, address.text) == (kind, kept)
    assert read_address(address.text, folder) == address


@pytest.mark.parametrize("name", ["studies.db", "maker_v1/other.db"])
def test_a_file_of_another_name_is_kept_whole(folder, monkeypatch, name):
    folder.parent.mkdir()
    monkeypatch.chdir(folder.parent)
    address = read_address(f"sqlite:///{name}", folder)
    assert address.text == f"sqlite:///{folder.parent / name}"
    assert read_address(address.text, folder) == address


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg://sweeper:hunter2@db/sweeps",
        "postgresql://sweeper:hun%74er2@db/sweeps",
        "postgresql+psycopg://sweeper@db/sweeps?password=hunter2",
        "postgresql+psycopg://sweeper@db/sweeps?sslpassword=hunter2",
        "postgresql+psycopg://sweeper@db/sweeps?hunter2",
        "postgresql+psycopg://sweeper:9/hunter2@db/sweeps",
        "postgresql+psycopg://sweeper:#hunter2@db/sweeps",
        "postgresql+psycopg://sweeper:?hunter2@db/sweeps",
        "postgresql+psycopg://sweeper@db:hunter2/sweeps",
        "postgresql+psycopg://sweeper:[hunter2@db/sweeps",
        "postgresql//sweeper:hunter2@db/sweeps",
        "postgres://sweeper:hunter2@db/sweeps",
        "sweeper:hunter2@db",
        "mysql+mysqldb://sweeper:hunter2@db/sweeps",
    ],
)
def test_no_message_repeats_a_password(folder, text):
    with pytest.raises(StorageError) as error:
        read_address(text, folder)
    assert "hunter2" not in str(error.value)
    assert "hun%74er2" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "jurnal",
            "storage jurnal: no such kind, did you mean 'journal'?; "
            "one of journal, sqlite, postgresql+psycopg:",
        ),
        ("postgres://u@h/d", "storage postgres: no such kind, did you mean 'postgresql+psycopg'?"),
        ("postgresql+psycopg2://u@h/d", "did you mean 'postgresql+psycopg'?"),
        ("mysql://u@h/d", "storage mysql: no such kind; one of journal"),
        ("sqlite://", "must name a file, such as sqlite:///studies.db"),
        ("sqlite:///:memory:", "must name a file"),
        (f"{PG}?sslmod=require", "no such option, did you mean 'sslmode'?"),
        ("postgresql+psycopg://u@h", "must be postgresql+psycopg://user@host:port/database"),
        (
            PG.replace("@", ":hunter2@"),
            "a line host:port:database:user:password into a file of mode 600 that PGPASSFILE",
        ),
    ],
)
def test_what_cannot_be_an_address(folder, text, message):
    with pytest.raises(StorageError) as error:
        read_address(text, folder)
    assert message in str(error.value)


def test_a_missing_driver_is_named(folder, monkeypatch):
    monkeypatch.setattr("hft.study.storage.importlib.util.find_spec", lambda name: None)
    with pytest.raises(StorageError, match=r"pip install 'psycopg\[binary\]'"):
        read_address(PG, folder)


def test_a_server_that_is_down_is_one_line(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = read_address(f"postgresql+psycopg://sweeper@127.0.0.1:{port}/sweeps", folder)
    for use in (
        address.open,
        address.locks().study().__enter__,
        lambda: address.locks().is_held("driver-a"),
    ):
        with pytest.raises(StorageError, match="does not answer") as error:
            use()
        assert "\n" not in str(error.value)
        assert str(port) in str(error.value)


def test_the_environment_is_not_repeated(folder, monkeypatch, caplog):
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    address = read_address("postgresql+psycopg://sweeper@127.0.0.1:1/sweeps", folder)
    with pytest.raises(StorageError) as error:
        address.open()
    shown = [str(error.value), repr(address), str(dataclasses.asdict(address)), caplog.text]
    assert "hunter2" not in "".join(shown)


# Storages


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_storage_is_opened_once_in_a_process(folder, kind):
    address = read_address(kind, folder)
    assert not address.exists()
    assert address.open() is read_address(kind, folder).open()
    assert address.exists()
    assert {p.name for p in folder.iterdir()} <= {"journal.log", "study.db", "study.db.lock"}
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR


def _tell_once(address, queue):
    study = optuna.load_study(study_name="s", storage=address.open())
    study.tell(study.ask(), 1.0)
    queue.put(len(study.trials))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_storage_survives_a_new_process(folder, kind, method):
    address = read_address(kind, folder)
    study = optuna.create_study(study_name="s", storage=address.open())
    study.tell(study.ask(), 1.0)
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    child = context.Process(target=_tell_once, args=(address, queue))
    child.start()
    assert queue.get() == 2
    child.join()
    study.tell(study.ask(), 1.0)
    assert [t.number for t in study.trials] == [0, 1, 2]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        read_address("journal", tmp_path / "file" / "s").open()


@pytest.mark.parametrize(
    "content",
    [
        b"garbage\n{}\n",
        b'{"op_code": 99, "worker_id": "a"}\n{}\n',
        b'{"op_code": 4}\n',
        b"[]\n" * 3,
    ],
)
def test_a_stranger_s_journal_is_one_line(folder, content):
    folder.mkdir(parents=True)
    (folder / "journal.log").write_bytes(content)
    with pytest.raises(StorageError, match=r"journal\.log: not a journal of ours"):
        read_address("journal", folder).open()


@pytest.mark.parametrize("kind", ["sqlite", "sqlite:///{folder}/other.db"])
def test_a_stranger_s_database_is_one_line(folder, kind):
    folder.mkdir(parents=True)
    address = read_address(kind.format(folder=folder), folder)
    address.path.write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match="does not answer"):
        address.open()


# The journal


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", b""),
        (b"{}\n", b"{}\n"),
        (b"{}\n{", b"{}\n"),
        (b"torn", b""),
        (b"{}\n" + b"x" * 200_000, b"{}\n"),
        (b"x" * 65535 + b"\n" + b"y" * 65537, b"x" * 65535 + b"\n"),
        (b"{}\n\x00\x00", b"{}\n"),
    ],
)
def test_what_a_torn_tail_is(tmp_path, content, kept):
    path = tmp_path / "journal.log"
    path.write_bytes(content)
    with path.open("rb+") as file:
        cut_torn_tail(file.fileno())
    assert path.read_bytes() == kept


def test_a_writer_killed_with_the_lock_in_hand_stops_nobody(folder):
    address = read_address("journal", folder)
    study = optuna.create_study(study_name="s", storage=address.open())
    script = (
        "import os, sys, pathlib\n"
        "from hft.study.journal import tail_locked\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "with tail_locked(path), path.open('ab') as file:\n"
        "    file.write(b'{\"op_c'); file.flush()\n"
        "    sys.stdout.write('held\\n'); sys.stdout.flush(); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(address.path)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    study.tell(study.ask(), 1.0)
    assert [json.loads(line)["op_code"] for line in address.path.read_bytes().splitlines()] == [
        0,
        4,
        6,
    ]


def test_a_disk_that_is_full_is_one_line_and_leaves_the_journal_whole(folder):
    address = read_address("journal", folder)
    study = optuna.create_study(study_name="s", storage=address.open())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (address.path.stat().st_size + 20, before[1]))
    try:
        with pytest.raises(StorageError, match=r"journal\.log: cannot be written \(.*make room"):
            study.ask()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not address.path.read_bytes().endswith(b"\n")
    study.tell(study.ask(), 1.0)
    assert [json.loads(line)["op_code"] for line in address.path.read_bytes().splitlines()] == [
        0,
        4,
        6,
    ]
    assert len(optuna.load_study(study_name="s", storage=address._open()).trials) == 1


def test_a_journal_that_is_gone_is_not_begun_anew(folder):
    address = read_address("journal", folder)
    study = optuna.create_study(study_name="s", storage=address.open())
    address.path.unlink()
    with pytest.raises(StorageError, match=r"journal\.log: cannot be written"):
        address.open().create_new_trial(study_id(study))
    assert not address.path.exists()


# Locks of files; those of PostgreSQL are in test_postgres.py

HOLD = (
    "import sys, pathlib\n"
    "from hft.study.storage import read_address\n"
    "locks = read_address(sys.argv[1], pathlib.Path(sys.argv[2])).locks()\n"
    "with locks.hold('driver-a'), locks.study():\n"
    "    sys.stdout.write('held\\n'); sys.stdout.flush(); sys.stdin.read()\n"
)


@pytest.mark.parametrize("ends", ["done", "killed"])
@pytest.mark.parametrize("text", ["journal", "sqlite:///{}/shared.db"])
def test_a_lock_falls_free_with_its_holder(tmp_path, folder, text, ends):
    text = text.format(tmp_path)
    locks = read_address(text, folder).locks()
    assert not locks.is_held("driver-a")
    command = [sys.executable, "-c", HOLD, text, str(folder)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    assert locks.is_held("driver-a")
    assert not locks.is_held("driver-b")
    if ends == "killed":
        process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not locks.is_held("driver-a")
    with locks.study(), locks.hold("driver-a"):
        assert locks.is_held("driver-a")


def test_folders_that_share_a_file_share_its_locks(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    one, other = (read_address(url, tmp_path / place / "s").locks() for place in ("here", "there"))
    with one.hold("driver-a"):
        assert other.is_held("driver-a")
        assert not read_address(url, tmp_path / "here" / "t").locks().is_held("driver-a")


def test_a_fork_does_not_keep_the_study_s_lock(folder):
    locks = read_address("journal", folder).locks()
    ready, finish = os.pipe(), os.pipe()
    with locks.study():
        child = os.fork()
        if child == 0:
            os.write(ready[1], b".")
            os.read(finish[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
    with locks.study():
        pass
    os.write(finish[1], b".")
    os.waitpid(child, 0)
