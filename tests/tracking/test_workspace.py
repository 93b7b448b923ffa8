"""The W&B workspace: the same every time, and no panel under a name that real runs do not log.

`python -m tests.tracking.test_workspace` writes tests/fixtures/workspace.json anew.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hft.__main__ import main
from hft.spec import PACKAGE
from hft.tracking.tracker import best_of
from hft.tracking.workspace import (
    Shown,
    WorkspaceError,
    build_workspace,
    config_paths,
    read_shown,
    to_json,
)
from tests.smoke import score_run, train_smoke
from tests.tracking.wandb_files import OfflineRun, read_offline

ROOT = PACKAGE.parent
SNAPSHOT = Path(__file__).parents[1] / "fixtures" / "workspace.json"
KEY = "k" * 40
SHOWN = Shown(
    objective="select/net_bps_day@binance_usdm_vip0",
    schedules=("binance_usdm_vip0", "binance_usdm_vip9", "maker_free"),
    backtest="test",
    spaces={
        "sweep=tpe": ("optim.lr", "model.channels", "bars.kind", "features.ofi.kind"),
        "typed": ("labels.width", "model.dropout"),
    },
)


# A number in a backtest of five days and more; tests have hours. test_a_sharpe_ratio_is_logged
# (tests/report/test_summary.py) holds its name.
SHARPE = "test/sharpe@binance_usdm_vip0"


def built(shown=SHOWN, *, name="Grids, studies and backtests"):
    return build_workspace(shown, project="hft", entity="team", name=name)


def plain(shown=SHOWN):
    return json.loads(to_json(built(shown)))["spec"]["section"]


def panels_of(section):
    return [panel for part in section["panelBankConfig"]["sections"] for panel in part["panels"]]


def named(section):
    """(what, name) of everything that the panels and the table of runs refer to."""
    for panel in panels_of(section):
        config = panel["config"]
        match panel["viewType"]:
            case "Bar Chart":
                yield from (("result", name) for name in config["metrics"])
                if "groupBy" in config:
                    yield "run", config["groupBy"]
            case "Run History Line Plot":
                yield "axis", config["xAxis"]
                yield from (("curve", name) for name in config["metrics"])
                yield "curves", config["metricRegex"]
            case "Scatter Plot":
                yield from (accessor(config[axis]) for axis in ("xAxis", "yAxis"))
            case "Parallel Coordinates Plot":
                yield from (accessor(column["accessor"]) for column in config["columns"])
            case "Parameter Importance":
                yield "result", config["targetKey"]
            case "Media Browser":
                yield from (("image", name) for name in config["mediaKeys"])
            case "Weave":
                yield "shown", config["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]
            case "Vega2":
                (query,) = config["userQuery"]["queryFields"]
                (table,) = [
                    a["value"]
                    for f in query["fields"]
                    for a in f.get("args", ())
                    if a["name"] == "tableKey"
                ]
                yield from (("column", (table, name)) for name in config["fieldSettings"].values())
            case "Run Comparer":
                pass
            case kind:
                pytest.fail(f"what does a panel of kind {kind!r} refer to?")
    yield from (
        accessor(column) for runs in section["runSets"] for column in runs["runFeed"]["columnOrder"]
    )


def accessor(text):
    what, _, name = text.partition(":")
    if what == "config":
        return "config", name.replace(
            ".value", "", 1
        )  # how W&B keeps what stands below a top-level entry
    return {"summary": "summary", "run": "run"}[what], name


def leaves(tree, path=""):
    return {
        leaf
        for name, value in tree.items()
        for leaf in (
            leaves(value, f"{path}{name}.")
            if isinstance(value, dict) and value
            else {f"{path}{name}"}
        )
    }


def is_logged(what, name, run: OfflineRun):
    """Whether the files of one run hold it."""
    import wandb_workspaces.expr

    numbers = {key for key, value in run.summary.items() if isinstance(value, int | float)}
    own = set(
        dict(wandb_workspaces.expr.FE_METRIC_NAME_MAP).values()
    )  # what W&B itself knows of every run
    checks = {
        "result": lambda: name in numbers or name in own,
        "summary": lambda: name in run.summary,
        "shown": lambda: name in run.tables or name in run.summary,
        "run": lambda: name in own,
        "axis": lambda: name in run.axis.values(),
        "curve": lambda: name in run.curves,
        "curves": lambda: any(re.search(name, curve) for curve in run.curves),
        "image": lambda: name in run.images,
        "column": lambda: name[0] in run.tables and name[1] in run.tables[name[0]]["columns"],
        "config": lambda: name in leaves(run.config),
    }
    return checks[what]()


def logged(run):
    return read_offline(run.folder)


@pytest.fixture(scope="module")
def alone(smoke):
    return logged(smoke.run)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run whose money is looked at every epoch, and with trades enough for an interval in its
    backtest.
    """
    return trained(tmp_path_factory.mktemp("watched"), "splits.train=0.4", "splits.test=0.3")


def trained(root, *overrides):
    with contextlib.redirect_stdout(io.StringIO()):
        run = train_smoke(root, "logger=wandb", "logger.mode=offline", "money_every=1", *overrides)
        score_run(root, run.id)
    return logged(run)


def test_every_name_is_one_that_a_run_or_its_backtest_logs(alone, watched):
    names = set(named(plain()))
    assert len(names) > 40
    assert [n for w, n in sorted(names) if not is_logged(w, n, watched)] == [SHARPE]
    # Without a look at the money there is no curve of it; below 30 trades no interval, below five
    # days no Sharpe ratio.
    few = {n for w, n in names if not is_logged(w, n, alone)}
    money = SHOWN.objective
    interval = {"test/break_even_low_bps", "test/break_even_high_bps"}
    assert few == {money, f"^(.*/)?{money}$", SHARPE, *interval}


def test_the_shipped_names_are_logged_too(watched):
    shown = read_shown()
    assert len(shown.schedules) > 5
    assert set(shown.targets) == {shown.objective, "select/log_loss"}
    names = {(what, name) for what, name in named(plain(shown)) if what != "config"}
    assert [n for w, n in sorted(names) if not is_logged(w, n, watched)] == [SHARPE]


def test_a_name_that_nobody_logs_would_be_seen(watched):
    assert not is_logged("result", "select/logloss", watched)
    assert not is_logged(
        "result", "tune/loss", watched
    )  # its summary is {"min": ...}: a curve, no result
    assert not is_logged("curves", "^(.*/)?select/log_loss$", watched)
    assert not is_logged("image", "test/equty", watched)
    assert not is_logged("column", ("test/scorecard", "net_day"), watched)
    assert not is_logged("config", "model.chanels", watched)


@pytest.mark.slow
def test_curves_and_results_of_several_seeds_are_found(tmp_path):
    run = trained(tmp_path, "seeds=2", "splits.train=0.4", "splits.test=0.3")
    names = set(named(plain())) - {("summary", SHARPE)}
    # Figures of several folds or seeds stand below each one's name, so do single curves: the
    # pattern finds those.
    missing = {(what, name) for what, name in names if not is_logged(what, name, run)}
    assert {what for what, _ in missing} <= {"curve", "image"}
    assert {"curves", "result", "summary", "shown"} <= {what for what, _ in names - missing}


def test_config_paths_are_those_of_a_run(alone):
    known = set(config_paths())
    config = {
        part: value for part, value in alone.config.items() if part not in ("code", "backtest_test")
    }
    assert sorted(leaves(config) - known) == []


def test_the_snapshot():
    assert to_json(built()) == SNAPSHOT.read_text(), (
        "as meant? python -m tests.tracking.test_workspace writes it anew"
    )


def test_ids_are_stable_and_no_two_the_same():
    ids = [panel["__id__"] for panel in panels_of(plain())]
    assert len(set(ids)) == len(ids)
    fewer = [panel["__id__"] for panel in panels_of(plain(replace(SHOWN, spaces={})))]
    assert set(fewer) < set(ids)  # another panel moves no id


def test_each_space_has_one_panel(tmp_path):
    conf = tmp_path / "conf"
    for name, text in {
        "train.yaml": "objective: select/log_loss\nseed: 0",
        "backtest.yaml": "name: exam",
        "fees/two.yaml": "a_1: {maker_bps: 1, taker_bps: 2}\na_0: {maker_bps: 1, taker_bps: 5}",
        "fees/all.yaml": "defaults: [two]",
        "bars/tick.yaml": "kind: tick\nsize: 10",
        "sweep/grid.yaml": "kind: grid",
        "sweep/_bars.yaml": "space: {bars: [tick, time], gone: [1, 2]}",
        "sweep/tpe.yaml": "defaults: [_bars, _self_]\nspace: {bars.size: {low: 1, high: 2}}",
        "sweep/asha.yaml": "space: {bars: [tick], bars.size: [1]}",
    }.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / name).write_text(text)
    shown = read_shown(conf=conf, swept=("seed",))
    assert shown == Shown(
        "select/log_loss",
        ("a_1", "a_0"),
        "exam",
        {"sweep=asha, tpe": ("bars.kind", "bars.size"), "typed": ("seed",)},
    )
    names = set(named(plain(shown)))
    assert ("image", "exam/equity") in names
    assert not [name for what, name in names if what == "curve" and "select" in name]
    with pytest.raises(
        WorkspaceError, match=r"swept: no such config path 'bar.size', did you mean 'bars.size'\?"
    ):
        read_shown(conf=conf, swept=("bar.size",))


def test_the_best_is_the_smallest_loss_and_the_largest_money():
    assert (best_of("select/log_loss"), best_of(SHOWN.objective)) == ("min", "max")
    scatter = {
        p["config"]["yAxis"]: p["config"]
        for p in panels_of(plain())
        if p["viewType"] == "Scatter Plot"
    }
    assert scatter["summary:select/log_loss"]["showMinYAxisLine"]
    assert scatter[f"summary:{SHOWN.objective}"]["showMaxYAxisLine"]


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return monkeypatch


def asked(capsys, *arguments):
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


OURS = ("workspace", "project=hft", "entity=team")


def test_dry_prints_what_would_be_saved_and_needs_no_key(nowhere, capsys):
    status, out, err = asked(capsys, *OURS, "name=Ours", "swept=optim.lr,bars", "dry=true")
    assert status == 0
    assert "Studies:\n  search space: sweep=" in err
    assert "Backtests:\n  summary table: test/verdict\n" in err
    assert "  net bps a day by schedule\n  equity\n" in err  # the title of a custom chart
    view = json.loads(out)
    assert (view["entity"], view["project"], view["displayName"]) == ("team", "hft", "Ours")
    assert {("config", "optim.lr"), ("config", "bars.kind")} <= set(named(view["spec"]["section"]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    {
        OURS: r"no key; log in with `wandb login`, .*dry=true",
        (*OURS, "dri=true"): "no such argument 'dri', did you mean 'dry'",
        (*OURS, "colour=red"): "no such argument 'colour', the arguments: project, entity",
        (*OURS, "dry=yes"): "dry must be true or false, got 'yes'",
        ("workspace", "entity=team"): "project must be a name and is missing",
        ("workspace", "project=hft", "entity=a/b"): r"entity must be a name without .*'a/b'",
        ("workspace", "project=a/b", "entity=team"): r"project must be a name without .*'a/b'",
        (*OURS, "swept=optim.rl", "dry=true"): "swept: no such config path 'optim.rl'",
        (*OURS, "name=\U0001f680", "dry=true"): "name: .*Emojis are not allowed",
    }.items(),
)
def test_what_the_user_can_mend_is_one_error(arguments, said, nowhere, capsys):
    status, out, err = asked(capsys, *arguments)
    assert (status, out) == (2, "")
    assert re.search(said, err)
    assert "Traceback" not in err


def test_offline_by_choice_is_one_error(nowhere, capsys):
    nowhere.setenv("WANDB_API_KEY", KEY)
    nowhere.setenv("WANDB_MODE", "offline")
    status, _, err = asked(capsys, *OURS)
    assert status == 2
    assert err.startswith("error: WANDB_MODE=offline: ")
    assert err.count("\n") == 1


def test_help_is_light():
    heavy = ("wandb", "wandb_workspaces", "torch", "matplotlib", "optuna")
    code = (
        "import contextlib, sys, hft.cli.workspace as t\n"
        "with contextlib.suppress(SystemExit): t.main(['--help'])\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.startswith("usage: hft workspace")
    assert done.stdout.endswith("[]\n")


class Server(http.server.BaseHTTPRequestHandler):
    """As much of W&B's as saving a view asks for; `server.refuses` is part of the queries it
    answers with 403.
    """

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/graphql":
            return self.answer(404, {})
        asked = json.loads(body)
        if self.server.refuses and self.server.refuses in asked["query"]:
            return self.answer(403, {"errors": [{"message": "permission denied"}]})
        if "upsertView" not in asked["query"]:
            return self.answer(
                200, {"data": {"viewer": {"id": "1", "entity": "team", "flags": "{}"}}}
            )
        self.server.saved.append(asked["variables"])
        view = {"id": "Vmlld3Nlcg==", "name": asked["variables"]["name"]}
        return self.answer(200, {"data": {"upsertView": {"view": view, "inserted": True}}})

    def answer(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.saved, server.refuses = [], ""
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask_server(server, folder, *, command=OURS):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    own = {
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "WANDB_API_KEY": KEY,
        "HOME": str(folder),
    }
    command = [sys.executable, "-m", "hft", *command]
    env = kept | own | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=env, timeout=120
    )


def test_with_a_key_it_is_saved_and_its_address_printed(server, tmp_path):
    done = ask_server(server, tmp_path)
    assert done.returncode == 0, done.stderr
    (saved,) = server.saved
    assert (saved["entityName"], saved["projectName"], saved["type"]) == (
        "team",
        "hft",
        "project-view",
    )
    assert saved["name"].removeprefix("nw-").removesuffix("-v") in done.stdout
    *panels, address = done.stdout.splitlines()
    assert address.startswith(f"http://127.0.0.1:{server.server_port}/team/hft?nw=")
    assert {"Grids and comparisons:", "  summary table: select/fees"} <= set(panels)
    sections = json.loads(saved["spec"])["section"]["panelBankConfig"]["sections"]
    assert [s["name"] for s in sections] == [
        "Grids and comparisons",
        "Studies",
        "Training",
        "Backtests",
    ]
    assert KEY not in done.stdout + done.stderr + saved["spec"]


def test_as_the_docs_print_it_the_team_is_that_of_the_key(server, tmp_path):
    page = (ROOT / "docs" / "sweeps.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("hft workspace")]
    done = ask_server(server, tmp_path, command=line.partition("#")[0].split()[1:])
    assert done.returncode == 0, done.stderr
    (saved,) = server.saved
    assert (saved["entityName"], saved["projectName"]) == ("team", "hft")


@pytest.mark.parametrize("refuses", ["viewer", "upsertView"])
def test_a_server_that_refuses_is_one_error(refuses, server, tmp_path):
    server.refuses = refuses
    done = ask_server(server, tmp_path)
    assert (done.returncode, done.stdout, server.saved) == (2, "", [])
    assert re.search(
        r"workspace of team/hft: not saved: .*permission denied.*wandb login --relogin", done.stderr
    )
    assert "Traceback" not in done.stderr
    assert KEY not in done.stderr


if __name__ == "__main__":
    SNAPSHOT.write_text(to_json(built()))
