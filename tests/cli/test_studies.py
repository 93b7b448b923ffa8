"""`hft studies`: every command on a small study, and every mistake one line and status 2."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from hft.__main__ import main as hft_main
from tests.smoke import ROOT
from tests.study.small_study import BASE, end, every_fate, small_study, write_run


def main(arguments):
    return hft_main(["studies", *arguments])


@pytest.fixture
def sweeps(tmp_path, monkeypatch):
    """maker_v1 with a trial of every fate, and fresh without any."""
    every_fate(tmp_path / "maker_v1")
    small_study(tmp_path / "fresh")
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def test_the_list_has_every_study(sweeps, capsys):
    (sweeps / "lost").mkdir()
    (sweeps / "lost" / "study.json").write_text("{}")
    assert main([f"sweeps={sweeps}"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    assert rows["maker_v1"] == ["6/20", "select/log_loss=0.5", "maker_v1/0001"]
    assert rows["fresh"] == ["0/20", "none", "by", "select/log_loss"]
    assert rows["lost"][0] == "-"
    assert "study.json: not a study of ours" in " ".join(out.split())


def plain(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_list_as_json(sweeps, capsys):
    (sweeps / "lost").mkdir()
    (sweeps / "lost" / "study.json").write_text("{}")
    fresh, lost, maker = plain(capsys, f"sweeps={sweeps}")
    assert (fresh["study"], fresh["done"], fresh["total"], fresh["best"]) == ("fresh", 0, 20, [])
    assert lost["study"] == "lost"
    assert "not a study of ours" in lost["reason"]
    counts = ("done", "total", "complete", "pruned", "failed", "retried", "running", "waiting")
    assert [maker[name] for name in counts] == [6, 20, 4, 1, 1, 2, 1, 1]
    assert [best["run"] for best in maker["best"]] == ["maker_v1/0001"]


def test_status_as_json(sweeps, capsys):
    status = plain(capsys, "status", "study=maker_v1", f"sweeps={sweeps}")
    assert (status["study"], status["done"]) == ("maker_v1", 6)
    (best,) = status["best"]
    assert best["numbers"] == {"select/log_loss": 0.5}
    assert best["params"]["model.channels"] == 8
    (now,) = status["now"]
    assert (now["run"], now["step"], now["reported"]) == ("maker_v1/0007", 3, 0.66)


def test_best_as_json(sweeps, capsys):
    (best,) = plain(capsys, "best", "study=maker_v1", f"sweeps={sweeps}")
    assert best["run"] == "maker_v1/0001"
    assert best["next"][0] == "python backtest.py ckpt=maker_v1/0001"
    assert main(["best", "study=fresh", f"sweeps={sweeps}", "--json"]) == 2
    said = capsys.readouterr()
    assert (said.out, "hft studies status study=fresh says how far it is" in said.err) == ("", True)


def test_json_has_no_infinity(tmp_path, capsys):
    end(small_study(tmp_path / "s"), float("inf"))
    (best,) = plain(capsys, "best", "study=s", f"sweeps={tmp_path}")
    assert best["numbers"] == {"select/log_loss": None}


def test_status(sweeps, capsys):
    assert main(["status", "study=maker_v1", f"sweeps={sweeps}"]) == 0
    out = capsys.readouterr().out
    assert "6 of 20 done" in out
    assert "elapsed" not in out  # nobody sweeps here
    assert max(map(len, out.splitlines())) <= 80


def test_best(sweeps, capsys):
    assert main(["best", "study=maker_v1", f"sweeps={sweeps}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "run=maker_v1/0001 select/log_loss=0.5",
        "  python backtest.py ckpt=maker_v1/0001",
        "  python train.py experiment=smoke 'tags=[a,b]' model=tcn model.channels=8 "
        "optim.lr=0.0123456789 seed=7",
    ]
    assert main(["best", "study=fresh", f"sweeps={sweeps}"]) == 2
    assert "no trial has completed within its constraints yet" in capsys.readouterr().err


def test_export_says_where(sweeps, capsys):
    assert main(["export", "study=maker_v1", f"sweeps={sweeps}"]) == 0
    written = [sweeps / "maker_v1" / name for name in ("results.parquet", "best", "report.html")]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in written]
    assert all(path.exists() for path in written)


def test_a_port_that_is_taken(sweeps, capsys):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["dashboard", "study=maker_v1", f"sweeps={sweeps}", f"port={port}"]) == 2
    assert (
        f"port={port}: cannot be served (Address already in use); choose another"
        in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_the_dashboard_serves_the_storage(tmp_path, storage):
    study = every_fate(tmp_path / "maker_v1", storage=storage)
    (write_run(study, 1) / "log.txt").write_text("printed\n")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    words = ["dashboard", "study=maker_v1", f"sweeps={tmp_path}", f"port={port}"]
    command = [sys.executable, "-m", "hft", "studies", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as served:
        try:
            address = served.stdout.readline().split()[2]
            assert address.startswith(f"http://localhost:{port}/dashboard/studies/")
            assert get(address)[0] == 200
            number = address.rpartition("/")[2]
            status, body = get(f"http://localhost:{port}/api/studies/{number}?after=0")
            assert (status, len(json.loads(body)["trials"])) == (200, 10)
            assert "maker_v1" in json.loads(body)["note"]["body"]
            assert get(f"http://localhost:{port}/runs/1/log.txt") == (200, b"printed\n")
        finally:
            served.send_signal(signal.SIGINT)
            try:
                served.communicate(timeout=30)
            finally:
                served.kill()
    assert served.returncode == 0


def get(address: str) -> tuple[int, bytes]:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return answer.status, answer.read()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["staus", "study=maker_v1"], "staus: no such command, did you mean 'status'?"),
        (["status", "best", "study=maker_v1"], "one command at a time"),
        (["status", "maker_v1"], "maker_v1: no such command; a study is named with study=maker_v1"),
        (["status", "study=maker_v1", "study=fresh"], "study=fresh: study is given twice"),
        (["status", "studdy=maker_v1"], "studdy=maker_v1: no such option, did you mean 'study'?"),
        (["status", "study="], "study=: must have a value"),
        (["status"], "status: which study? study=<name> (one of fresh, maker_v1)"),
        (
            ["study=maker_v1"],
            "study=maker_v1: for which command? (one of status, best, export, dashboard)",
        ),
        (
            ["status", "study=maker_v2"],
            "no study 'maker_v2', did you mean 'maker_v1'?; the studies in",
        ),
        (
            ["dashboard", "study=maker_v1", "port=http"],
            "port=http: must be a number from 1 to 65535",
        ),
        (["export", "study=maker_v1", "--json"], "export: has no --json; take it out"),
    ],
)
def test_mistakes(sweeps, capsys, arguments, message):
    assert main([*arguments, f"sweeps={sweeps}"]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


@pytest.mark.parametrize("arguments", [[], ["status", "study=x"]])
def test_without_a_folder_of_sweeps(tmp_path, capsys, arguments):
    assert main([*arguments, f"sweeps={tmp_path / 'none'}"]) == 2
    said = capsys.readouterr().err
    assert "no such folder" in said
    assert "python train.py -m sweep=tpe" in said
    assert main([*arguments, f"sweeps={tmp_path}"]) == 2
    assert "there are no studies in" in capsys.readouterr().err


def test_a_study_that_only_its_storage_knows(tmp_path, capsys):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    every_fate(tmp_path / "there" / "maker_v1", storage=storage)
    here = f"sweeps={tmp_path / 'here'}"
    assert main(["status", "study=maker_v1", f"storage={storage}", here]) == 0
    assert "6 of 20 done" in capsys.readouterr().out
    assert main(["status", "study=maker_v2", f"storage={storage}", here]) == 2
    said = capsys.readouterr().err
    assert "study maker_v2 is not in storage" in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "study torn is not in storage journal: there is nothing of that name; restore it"),
        (b"no journal\n{}\n", "journal.log: not a journal of ours"),
        (b'{"op_code": 0, "worker_id": "x"}\n', "journal.log: not a journal of ours"),
        (b"\xff\xfe\n", "journal.log: not a journal of ours"),
    ],
)
def test_an_unreadable_journal_is_one_line(sweeps, content, message):
    small_study(sweeps / "torn")
    (sweeps / "torn" / "journal.log").write_bytes(content)
    code = (
        "import sys; from hft.__main__ import main\n"
        f"words = ['study=torn', {f'sweeps={sweeps}'!r}]\n"
        "sys.exit(max(main(['studies', c, *words]) for c in ('status', 'best', 'export')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 3
    assert all(message in line for line in done.stderr.splitlines())


def test_a_storage_that_is_gone(sweeps, capsys):
    small_study(sweeps / "torn", storage="sqlite")
    (sweeps / "torn" / "study.db").unlink()
    assert main(["status", "study=torn", f"sweeps={sweeps}"]) == 2
    assert (
        "study torn is not in storage sqlite: there is nothing of that name; restore it"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"sweep": {"kind": "os.system"}}, "not a study of ours"),
        ({"space": [{"path": "a; rm -rf ~"}]}, "space"),
        ({"name": "another"}, "is of study another"),
        ({"storage": "postgresql://me:secret@host/db"}, "a password must not stand in the address"),
        ({"base": {**BASE, "seed": 9}}, "seed: (none) -> 9"),
    ],
)
def test_a_stranger_s_study_is_refused_in_words(sweeps, capsys, edit, message):
    path = sweeps / "maker_v1" / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    for command in ("status", "best", "export", "dashboard"):
        assert main([command, "study=maker_v1", f"sweeps={sweeps}"]) == 2
        said = capsys.readouterr()
        assert message in said.err
        assert said.out == ""
        assert "secret" not in said.err
    assert not (sweeps / "maker_v1" / "report.html").exists()


def test_what_a_stranger_wrote_moves_no_cursor(tmp_path, capsys):
    study = every_fate(tmp_path / "maker_v1")
    about = study.about | {"overrides": ["tags=[\x1b[2Jx]"]}
    study.optuna.set_user_attr("hft", about)
    (study.folder / "study.json").write_text(json.dumps(about))
    for command in ("status", "best"):
        assert main([command, "study=maker_v1", f"sweeps={tmp_path}"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys; from hft.cli.studies import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as ended:\n    assert ended.code == 0\n"
        "heavy = {'optuna', 'torch', 'polars', 'rich', 'matplotlib', 'wandb', 'sqlalchemy'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for word in ("status", "best", "export", "dashboard", "--json", "study=<name>"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
