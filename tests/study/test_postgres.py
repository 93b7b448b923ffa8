"""A real PostgreSQL: several processes on one study, locks that fall free with their session,
passwords nowhere.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from optuna.trial import TrialState

import hft.study.locks as locks_module
from hft.study.claims import reap
from hft.study.optuna_internals import study_id
from hft.study.storage import StorageError, read_address
from hft.study.study import StudyError, open_study
from tests.study.claimers import GRID, ROOT, check_complete, drive, end, make_study, start

pytest_plugins = ("tests.study.servers",)
PASSWORD = "hunter2"


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch):
    """The server of the tests has just come up."""
    monkeypatch.setattr(locks_module, "GRACE_S", 0)
    monkeypatch.setattr(locks_module, "RENEW_S", 0.1)


@pytest.fixture
def database(postgres, request):
    """A fresh database in the server."""
    name = f"d{abs(hash(request.node.name))}"
    postgres.run(f"create database {name}")
    yield name
    postgres.run(f"drop database {name} with (force)")


@pytest.fixture
def url(postgres, database):
    return postgres.url(database)


def held(url, folder):
    """A process that holds driver-a."""
    script = (
        "import sys, pathlib\n"
        "from hft.study.storage import read_address\n"
        "with read_address(sys.argv[1], pathlib.Path(sys.argv[2])).locks().hold('driver-a'):\n"
        "    sys.stdout.write('held\\n'); sys.stdout.flush(); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, url, str(folder)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def wait_until(condition, timeout_s=10.0):
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


# Studies


@pytest.mark.slow
def test_four_processes_on_one_study(tmp_path, url):
    study = make_study(tmp_path / "s", n_trials=24, storage=url, max_retry=3)
    killed = start(study, driver="a", die=["taken", 4], pause=0.2)
    # On a busy machine the others could do it all before this one is up.
    wait_until(study.trials, 60)
    others = [start(study, driver=driver, pause=0.02) for driver in "bcd"]
    n_taken = len(end(killed, killed=True))
    taken = [end(process) for process in others]
    check_complete(study, 24)
    assert all(taken)
    assert n_taken + sum(map(len, taken)) == 25
    assert len({t.params["optim.lr"] for t in study.trials()}) == 24
    assert {
        len(t.intermediate_values) for t in study.trials() if t.state is TrialState.COMPLETE
    } == {3}


@pytest.mark.parametrize("die", [["enqueued", 3], ["before driver", 3]], ids=lambda d: d[0])
def test_a_grid_is_whole_wherever_a_driver_dies(tmp_path, url, die):
    study = make_study(tmp_path / "s", space=GRID, n_trials=12, max_retry=1, storage=url)
    end(start(study, driver="a", points=GRID.grid(), die=die), killed=True)
    drive(study, driver="b", total=12, points=GRID.grid())
    check_complete(study, 12)
    done = [t.params for t in study.trials() if t.state is TrialState.COMPLETE]
    assert sorted(map(json.dumps, done)) == sorted(map(json.dumps, GRID.grid()))


def test_studies_that_begin_at_once(tmp_path, url):
    """Optuna's tables are made once, and the study of one name too."""
    errors = []

    def begin(place, name):
        try:
            make_study(tmp_path / place / name, storage=url)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=begin, args=(f"host{i}", f"s{i % 2}")) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (
        open_study(tmp_path / "host0" / "s0").about == open_study(tmp_path / "host2" / "s0").about
    )


def test_another_machine_joins(tmp_path, url):
    here = make_study(tmp_path / "here" / "s", storage=url, n_trials=6)
    assert json.loads((here.folder / "study.json").read_text())["storage"] == url
    end(start(here, driver="a", total=3))
    there = tmp_path / "there" / "s"
    shutil.copytree(tmp_path / "here" / "conf", there.parent / "conf")
    joined = make_study(there, storage=url, n_trials=6)
    drive(joined, driver="b", total=6)
    check_complete(here, 6)
    (tmp_path / "else" / "conf").mkdir(parents=True)
    with pytest.raises(StudyError, match="its conf/ is"):
        make_study(tmp_path / "else" / "s", storage=url)
    here.address.open().delete_study(study_id(here.optuna))
    with pytest.raises(StudyError, match=r"is not in storage .* restore it"):
        open_study(there)


# Locks


@pytest.mark.parametrize("ends", ["done", "killed"])
def test_a_lock_falls_free_with_its_holder(tmp_path, url, ends):
    locks = read_address(url, tmp_path / "s").locks()
    assert not locks.is_held("driver-a")
    process = held(url, tmp_path / "elsewhere" / "s")
    assert locks.is_held("driver-a")
    assert not locks.is_held("driver-b")
    assert not read_address(url, tmp_path / "t").locks().is_held("driver-a")
    with locks.study():
        assert locks.is_held("driver-a")
    if ends == "killed":
        process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not locks.is_held("driver-a"))


def test_one_at_a_time_has_the_study(tmp_path, url):
    locks, inside, most = read_address(url, tmp_path / "s").locks(), [], []

    def enter():
        for _ in range(10):
            with locks.study():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 30


def test_a_holder_that_loses_its_connection_takes_its_lock_again(
    tmp_path, url, postgres, database, caplog
):
    locks = read_address(url, tmp_path / "s").locks()
    holders = "select pid from pg_locks where locktype = 'advisory' and granted"
    with locks.hold("driver-a"), caplog.at_level(logging.WARNING):
        ((first,),) = postgres.run(holders)
        postgres.run(f"select pg_terminate_backend({first})")
        wait_until(lambda: [(first,)] != postgres.run(holders) != [])
        assert locks.is_held("driver-a")
    assert "lock driver-a of study s: the database went away; taking it again" in caplog.text
    wait_until(lambda: not locks.is_held("driver-a"))


def test_a_lock_that_the_lost_session_keeps_for_a_while_is_taken_again(
    tmp_path, url, postgres, database
):
    """A server may miss a session later than its client does; here another one has the lock
    meanwhile.
    """
    import psycopg

    locks = read_address(url, tmp_path / "s").locks()
    with (
        locks.hold("driver-a"),
        psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as late,
    ):
        ((first,),) = postgres.run(
            "select pid from pg_locks where locktype = 'advisory' and granted"
        )
        taking = threading.Thread(
            target=late.execute, args=("select pg_advisory_lock(%s)", [locks._key("driver-a")])
        )
        taking.start()
        wait_until(
            lambda: postgres.run(
                "select 1 from pg_locks where locktype = 'advisory' and not granted"
            )
        )
        postgres.run(f"select pg_terminate_backend({first})")
        taking.join()
        wait_until(
            lambda: postgres.run(
                "select 1 from pg_stat_activity where query = 'select 1' "
                f"and datname = '{database}'"
            )
        )
        late.close()
        wait_until(lambda: locks.is_held("driver-a"))
    wait_until(lambda: not locks.is_held("driver-a"))


def test_nobody_is_dead_while_a_server_has_just_come_up(tmp_path, url, monkeypatch):
    study = make_study(tmp_path / "s", storage=url)
    end(start(study, driver="a", die=["taken", 1]), killed=True)
    monkeypatch.setattr(locks_module, "GRACE_S", 3600)
    assert reap(study) == []
    monkeypatch.setattr(locks_module, "GRACE_S", 0)
    wait_until(lambda: reap(study) == [0])


def test_the_server_looks_after_silent_clients(tmp_path, url, postgres):
    assert "tcp_keepalives_idle=10" in locks_module.SERVER_OPTIONS
    conninfo = url.replace("+psycopg", "")
    import psycopg

    options = {"options": locks_module.SERVER_OPTIONS, **locks_module.CLIENT_OPTIONS}
    # The server knows every option.
    with psycopg.connect(conninfo, **options) as connection:
        assert connection.execute("show lock_timeout").fetchone() == ("0",)


def test_a_fork_that_ends_does_not_end_the_lease(tmp_path, url):
    locks = read_address(url, tmp_path / "s").locks()
    with locks.hold("driver-a"):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert locks.is_held("driver-a")


# Passwords


@pytest.fixture
def guarded(postgres, database, tmp_path, monkeypatch):
    """A user whom the server asks for a password; gives the address and the file that PGPASSFILE
    names.
    """
    postgres.run(f"create role sweeper login superuser password '{PASSWORD}'")
    rules = postgres.handle.pgdata / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("local all sweeper scram-sha-256\n" + before)
    postgres.run("select pg_reload_conf()")
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"*:*:*:sweeper:{PASSWORD}\n")
    passfile.chmod(0o600)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    yield postgres.url(database, user="sweeper")
    rules.write_text(before)
    postgres.run("select pg_reload_conf()")
    postgres.run("reassign owned by sweeper to postgres", database)
    postgres.run("drop role sweeper")


def test_a_password_comes_from_its_file_and_goes_nowhere(
    tmp_path, guarded, caplog, capfd, monkeypatch
):
    with caplog.at_level(logging.DEBUG):
        study = make_study(tmp_path / "s", storage=guarded, n_trials=3)
        taken = end(start(study, driver="a", total=2))
        drive(study, driver="b", total=3)
    check_complete(study, 3)
    assert taken == [0, 1]
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "wrong"))
    (tmp_path / "wrong").write_text(f"*:*:*:sweeper:not-{PASSWORD}\n")
    (tmp_path / "wrong").chmod(0o600)
    refused = []
    for use in (study.locks.study().__enter__, read_address(guarded, tmp_path / "other").open):
        with pytest.raises(StorageError, match="password authentication failed") as error:
            use()
        assert "\n" not in str(error.value)
        refused += [str(error.value), repr(error.value)]
    out, err = capfd.readouterr()
    files = [
        path.read_bytes().decode(errors="replace")
        for path in study.folder.rglob("*")
        if path.is_file()
    ]
    shown = [
        caplog.text,
        out,
        err,
        repr(study),
        repr(study.address),
        str(study.optuna.user_attrs),
        *files,
        *refused,
    ]
    assert PASSWORD not in "\n".join(shown)


def test_without_a_password_the_message_says_where_it_belongs(tmp_path, guarded, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", os.devnull)
    with pytest.raises(StorageError, match="PGPASSFILE"):
        make_study(tmp_path / "s", storage=guarded)


def test_a_database_that_is_not_there(tmp_path, postgres):
    with pytest.raises(StorageError, match='database "nothing" does not exist'):
        read_address(postgres.url("nothing"), tmp_path / "s").open()
