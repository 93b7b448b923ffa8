"""`python -m hft.studies`: every command on a study, also on one that was really swept; every mistake one line and
status 2."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import polars as pl
import pytest

from hft import studies
from hft.studies import main
from hft.study import open_study
from tests.small_study import BASE, every_fate, small_study
from tests.smoke import QUIET, ROOT, folders
from tests.wandb_files import read_offline


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
        "  python train.py experiment=smoke 'tags=[a,b]' model=tcn model.channels=8 optim.lr=0.0123456789 seed=7",
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
    assert f"port={port}: cannot be served (Address already in use); choose another" in capsys.readouterr().err


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_the_dashboard_serves_the_storage(tmp_path, storage):
    every_fate(tmp_path / "maker_v1", storage=storage)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "hft.studies", "dashboard", "study=maker_v1", f"sweeps={tmp_path}", f"port={port}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as served:
        try:
            address = served.stdout.readline().split()[2]
            assert address.startswith(f"http://localhost:{port}/dashboard/studies/")
            assert get(address)[0] == 200
            number = address.rpartition("/")[2]
            status, body = get(f"http://localhost:{port}/api/studies/{number}?after=0")
            assert (status, len(json.loads(body)["trials"])) == (200, 10)
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
        (["status", "studdy=maker_v1"], "studdy=maker_v1: no such option, did you mean 'study'?"),
        (["status", "study="], "study=: must have a value"),
        (["status"], "status: which study? study=<name> (one of fresh, maker_v1)"),
        (["study=maker_v1"], "study=maker_v1: for which command? (one of status, best, export, dashboard)"),
        (["status", "study=maker_v2"], "no study 'maker_v2', did you mean 'maker_v1'?; the studies in"),
        (["dashboard", "study=maker_v1", "port=http"], "port=http: must be a number from 1 to 65535"),
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "journal.log: there is nothing"),
        (b"no journal\n", "journal.log: not a journal of ours"),
        (b'{"op_code": 99, "worker_id": "x"}\n', "not a journal of ours"),
    ],
)
def test_an_unreadable_journal_is_one_line(sweeps, capsys, content, message):
    small_study(sweeps / "torn")
    (sweeps / "torn" / "journal.log").write_bytes(content)
    code = (
        "import sys; from hft.studies import main\n"
        f"sys.exit(max(main([c, 'study=torn', {f'sweeps={sweeps}'!r}]) for c in ('status', 'best', 'export')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 3
    assert all("torn" in line for line in done.stderr.splitlines())


def test_a_storage_that_is_gone(sweeps, capsys):
    small_study(sweeps / "torn", storage="sqlite")
    (sweeps / "torn" / "study.db").unlink()
    assert main(["status", "study=torn", f"sweeps={sweeps}"]) == 2
    assert "study torn is not in storage sqlite: there is nothing of that name; restore it" in capsys.readouterr().err


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


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two trials of the smoke experiment, swept with W&B offline: (root, what was printed)."""
    root = tmp_path_factory.mktemp("swept")
    arguments = [
        "train.py", "-m", "experiment=smoke", "launcher=inline", "trainer.epochs=1", *QUIET, *folders(root),
        "sweep=random", "sweep.space=null", "sweep.enqueue=[]", "sweep.study=maker_v1", "sweep.n_trials=2",
        "optim.lr=tag(log,interval(1e-4,1e-2))", "objective=select/log_loss",
        "logger=wandb", "logger.mode=offline", "tags=[nightly]",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()) as printed:
        patched.setattr(sys, "argv", arguments)
        patched.setenv("COLUMNS", "100")
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    return root, printed.getvalue()


def test_the_commands_on_a_study_that_was_swept(swept, capsys):
    root, printed = swept
    study = open_study(root / "sweeps" / "maker_v1")
    assert study.optuna.user_attrs["n_trials"] == 2
    (best,) = study.best()
    table = printed[printed.index("2 trials of maker_v1 by select/log_loss") :]
    assert f"{best.params['optim.lr']:.4g}" in table
    assert str(best.params["optim.lr"]) not in table
    sweeps = f"sweeps={root / 'sweeps'}"
    assert main([sweeps]) == 0
    assert " 2/2 " in capsys.readouterr().out
    assert main(["status", "study=maker_v1", sweeps]) == 0
    assert capsys.readouterr().out.startswith("maker_v1: 2 of 2 done (2 complete, 0 pruned,")
    assert main(["best", "study=maker_v1", sweeps]) == 0
    said = capsys.readouterr().out
    assert f"optim.lr={best.params['optim.lr']!r}" in said  # to paste: every digit
    assert "python backtest.py ckpt=maker_v1/" in said
    for name in ("results.parquet", "report.html"):
        (study.folder / name).unlink()
    assert main(["export", "study=maker_v1", sweeps]) == 0
    assert pl.read_parquet(study.folder / "results.parquet")["state"].to_list() == ["complete"] * 2
    assert (study.folder / "report.html").stat().st_size > 10_000


def test_best_is_a_run_folder_that_scores_the_same(swept, shell, tmp_path):
    root, _ = swept
    study = open_study(root / "sweeps" / "maker_v1")
    (best,) = study.best()
    folder = tmp_path / "taken_along"
    shutil.copytree(study.folder / "best", folder)
    cards = []
    for ckpt, run in ((f"maker_v1/{best.number:04d}", study.trial_folder(best.number)), (f"{folder}{os.sep}", folder)):
        ended = shell("backtest.py", f"ckpt={ckpt}", "logger=none", *folders(root))
        assert ended.status == 0, ended.err
        cards.append(json.loads((run / "backtest" / "test" / "scorecard.json").read_text()))
    assert cards[0]["metrics"] == cards[1]["metrics"]


def test_wandb_has_the_study_and_every_trial_in_its_group(swept):
    study = open_study(swept[0] / "sweeps" / "maker_v1")
    for number in (0, 1):
        trial = read_offline(study.trial_folder(number))
        assert set(trial.ids) == {f"maker_v1-{number:04d}"}
        assert (trial.group, trial.tags) == ("maker_v1", ["nightly"])
        assert trial.config["optim"]["lr"] == study.trials()[number].params["optim.lr"]
        assert trial.summary["select/log_loss"] == study.trials()[number].value
    whole = read_offline(study.folder)
    assert (set(whole.ids), whole.group, whole.tags) == ({"maker_v1"}, "maker_v1", ["nightly"])
    assert len(whole.tables["sweep/trials"]["data"]) == 2
    assert set(whole.images) == {"sweep/history", "sweep/slices"}
    assert "study maker_v1" in whole.pages["sweep/report"]


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys; from hft.studies import main; assert main(['--help']) == 0\n"
        "heavy = {'optuna', 'torch', 'polars', 'rich', 'matplotlib', 'wandb', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == studies.USAGE
