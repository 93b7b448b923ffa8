"""Every command that a page or a message prints works as it is printed.

The default suite reads each one as far as reading is cheap: a run's or a study's settings are
composed, parsed and proved, the short commands run. The slow suite runs each one in a shell. A
command that no rule below names fails.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import benchmarks
from hft import __main__ as hft_main
from hft.cli import backtest, train
from hft.config.compose import compose
from hft.config.overrides import parse_overrides
from hft.runs.folder import Run
from hft.search.plan import make_plan
from hft.system.conf import CONF
from tests import printed
from tests.smoke import QUIET, ROOT

PAGES, MESSAGES = printed.on_pages(), printed.in_messages()
STUDY, UNFINISHED = "maker_v1", "20240101-000000-0000"
# What stands for a placeholder of the pages, and for what the code fills in.
FILLED = {
    "<run>": "latest",
    "<name>": STUDY,
    "<folder>": "captures",
    "<archive>": "archive",
}
EXAMPLES = {
    "hft {}": "hft train --help",
    "hft backtest ckpt={}": "hft backtest ckpt=latest",
    "hft train reproduce={}": "hft train reproduce=latest",
    "hft train resume={}": f"hft train resume={UNFINISHED}",
    "hft schema <folder>": "hft schema schemas",
    "hft train {}": "hft train experiment=smoke optim.lr=0.01",
    "hft studies dashboard study=<name>": f"hft studies dashboard study={STUDY}",
    "hft studies status study={}": f"hft studies status study={STUDY}",
    "hft studies {} study={}": f"hft studies best study={STUDY}",
    "hft cache cache=<folder>": "hft cache cache=.cache",
    "hft workspace project=<name>": "hft workspace project=hft dry=true",
}
# A page that speaks of a command and prints no line to type: `hft train` does what train.py does.
NAMED = ("hft train", "hft backtest", "hft workspace")
# Why a command is not run here, and what says that it works.
ELSEWHERE = {
    r"make (setup|lint|lint test|demo|test|test-slow|bench)": ".ci/run runs it",
    r"make bench( \w+)+": "tests/test_benchmarks.py runs each benchmark",
    r"make help": "its text is read in test_the_targets",
    r"python -m benchmarks( .+)?": "tests/test_benchmarks.py runs each, .ci/run the whole",
    r"python -m docs\.generate": "tests/test_docs.py compares the pages with what it writes",
    r"\.ci/run": "it is the script that runs these tests",
    r"pip install pre-commit && .*": "test_the_hooks reads the hooks",
    r"pip install \.": "tests/test_package.py builds the package, .ci/wheel installs it",
    r"source \.venv/bin/activate": "make setup makes it",
    r"python train.py experiment=binance_capture .*": ".ci/run runs it on the real captures",
    r"python train.py experiment=demo": "make demo runs it",
    r".* trainer=gpu .*": "it needs a card",
    r".*sweep.storage=.*": "tests/study/test_postgres.py has the server",
    r"hft workspace project=hft": "W&B's server is not reached; tests/tracking has the workspace",
    r"wandb (login|login --relogin|sync \S+)": "W&B's server is not reached",
}
# What the slow suite adds where the printed line alone would take minutes: a market of forty
# minutes with many trades, a small network, one epoch, few trials, two in place of 200.
SMALL = (
    "data.end=2024-01-01T00:40", "data.trade_qty=0.5", "labels.horizon=10", "labels.span=50",
    "model.channels=8", "model.levels=2", "trainer.epochs=1", *QUIET,
)  # fmt: skip
FEW = ("sweep.n_trials=2", "launcher=inline")


@dataclass(frozen=True)
class Home:
    """What somebody has who follows README: a finished run, an unfinished one, a study."""

    folder: Path

    def run(self, line: str, *, timeout: int = 300) -> subprocess.CompletedProcess[str]:
        """The line in a shell, in this folder, with the environment's programs first."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=os.environ | {"PATH": path},
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip


@pytest.fixture(scope="module")
def home(smoke, tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    for script in ("train.py", "backtest.py"):
        (folder / script).symlink_to(ROOT / script)
    smoke.copy(folder)
    shutil.copytree(smoke.run.folder, folder / "runs" / UNFINISHED)
    leave_unfinished(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        grid = [
            "-m", "experiment=smoke", "launcher=inline", "logger=none", "trainer.epochs=1", *QUIET,
            "model.channels=4,8", f"sweep.study={STUDY}",
        ]  # fmt: skip
        patched.setattr(sys, "argv", ["hft"])
        assert train.main(grid) == 0, "the study of this folder was not made"
    return Home(folder)


def leave_unfinished(folder: Path) -> None:
    run = Run(folder / "runs" / UNFINISHED)
    (run.folder / "metrics.json").unlink(missing_ok=True)
    run.mark("interrupted")


def filled(command: str) -> str:
    """The line to type, without its comment."""
    line = re.sub(r"\s+#.*$", "", command).removeprefix(".venv/bin/")
    for name, value in FILLED.items():
        line = line.replace(name, value)
    return line


def elsewhere(line: str) -> str:
    """Who runs it, if it is not run here."""
    return next((why for rule, why in ELSEWHERE.items() if re.fullmatch(rule, line)), "")


def lines() -> list[str]:
    """What is printed, to be typed: of the pages and of the messages."""
    typed = [EXAMPLES.get(command, command) for command in MESSAGES]
    return list(dict.fromkeys(map(filled, [*PAGES, *typed])))


@pytest.mark.parametrize("line", lines())
def test_what_is_printed_is_understood(line, home, monkeypatch, capfd):
    monkeypatch.chdir(home.folder)
    match shlex.split(line):
        case ["python", "train.py" | "backtest.py" as script, *arguments]:
            understand(script.removesuffix(".py"), arguments, monkeypatch)
        case ["hft", "train" | "backtest" as entry, *arguments] if line not in NAMED:
            understand(entry, arguments, monkeypatch)
        case ["hft", "audit" as name] | ["hft", "studies" as name, "dashboard", *_]:
            with pytest.raises(SystemExit, match="0"):  # the slow suite runs them
                hft_main.main([name, "--help"])
        case ["hft", "--help" | "--version" as flag]:
            with pytest.raises(SystemExit, match="0"):
                hft_main.main([flag])
        case ["hft", *arguments] if line not in NAMED and not elsewhere(line):
            assert hft_main.main(arguments) == 0, capfd.readouterr().err
        case ["hft", "workspace", *arguments] if line not in NAMED:
            assert hft_main.main(["workspace", *arguments, "dry=true"]) == 0
        case ["eval", _]:
            done = home.run(f"{line} && complete -p python")
            assert "hydra_bash_completion" in done.stdout, done.stderr
        case ["make", *targets]:
            words = [t for t in targets if "bench" not in targets or t not in benchmarks.NAMES]
            assert set(words) <= printed.targets()
            assert elsewhere(line)
        case ["python", "-m", "benchmarks" | "benchmarks.training", *names]:
            done = home.run(f"cd {ROOT} && python -m benchmarks --help")
            assert done.returncode == 0, done.stderr
            assert all(name in done.stdout for name in names)
        case _:
            assert line in NAMED or elsewhere(line), f"no rule for {line!r}: say here who runs it"


def understand(entry: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags run, as they are cheap. Settings are composed and parsed; a sweep's space is proved."""
    command = {"train": train, "backtest": backtest}[entry]
    flags = [a for a in arguments if a.startswith("-") and a != "-m"]
    if flags:
        monkeypatch.setattr(sys, "argv", ["hft", *arguments])
        assert command.main(arguments) == 0
        return
    overrides = [a for a in arguments if a != "-m"]
    if "-m" in arguments:
        assert make_plan(parse_overrides(overrides), CONF).config
        return
    composed = compose(overrides, entry=entry, full_tree=True)
    command._read(composed, choices=composed.hydra.runtime.choices, overrides=overrides)


def test_no_message_names_a_script_where_there_may_be_none():
    scripts = [m for m in MESSAGES if m.startswith("python") and MESSAGES[m] != "Makefile"]
    assert scripts == [], 'say typed("train", ...), which names the command that works'


def test_every_rule_has_its_use():
    typed = lines()
    assert [m for m in EXAMPLES if m not in MESSAGES] == []
    assert [rule for rule in ELSEWHERE if not any(re.fullmatch(rule, t) for t in typed)] == []
    assert [name for name in FILLED if not any(name in command for command in PAGES)] == []


def test_what_ci_is_said_to_run_it_runs():
    script = printed.shell_words(ROOT / ".ci" / "run")
    for target in ("setup", "lint", "test", "test-slow", "demo", "bench"):
        assert f"make {target}" in script
    assert script.count("python train.py experiment=binance_capture") == 3


def test_the_targets():
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    said = {line.split()[0] for line in done.stdout.splitlines()}
    assert said == printed.targets()


def test_the_hooks():
    """Each runs a program that make setup installs, as make lint does."""
    import yaml

    text = (ROOT / ".pre-commit-config.yaml").read_text()
    entries = [hook["entry"].split() for hook in yaml.safe_load(text)["repos"][0]["hooks"]]
    names = {Path(program).name for program, *_ in entries}
    assert names == {"ruff", "mypy", "hft"}
    assert all((Path(sys.executable).parent / name).exists() for name in names)
    assert all(program == f".venv/bin/{Path(program).name}" for program, *_ in entries)


@pytest.mark.parametrize(
    "arguments", [["runs"], ["studies"], ["studies", "status"], ["studies", "best"]]
)
def test_what_a_command_prints_is_understood(arguments, home, monkeypatch, capsys):
    """The lines to paste, as they come out."""
    monkeypatch.chdir(home.folder)
    monkeypatch.setenv("COLUMNS", "300")
    given = [f"study={STUDY}"] if len(arguments) > 1 else []
    assert hft_main.main([*arguments, *given]) == 0
    out = capsys.readouterr().out
    found = re.findall(r"hft (train|backtest) (.+?)\s*$", out, re.MULTILINE)
    assert found or arguments not in (["runs"], ["studies", "best"])
    for entry, rest in found:
        understand(entry, shlex.split(rest), monkeypatch)


def to_run() -> list[str]:
    return [line for line in lines() if not elsewhere(line) and line not in NAMED]


@pytest.mark.slow
@pytest.mark.parametrize("line", to_run())
def test_what_is_printed_works(line, home, tmp_path):
    """As printed, in a shell; SMALL and FEW follow where the line trains on a market of hours."""
    words = shlex.split(line)
    trains = "train.py" in words or words[:2] == ["hft", "train"]
    flags = [w for w in words if w.startswith("-") and w != "-m"]
    own = ("resume=", "reproduce=", "experiment=smoke")
    if trains and not flags and not any(w.startswith(own) for w in words):
        line = with_more(line, SMALL)
    if trains and "-m" in words:
        line = with_more(line.replace("sweep.n_trials=200", "sweep.n_trials=2"), FEW)
        for script in ("train.py", "backtest.py"):
            (tmp_path / script).symlink_to(ROOT / script)
        home = Home(tmp_path)  # without the study of that name, which has another space
    if "resume=" in line:
        leave_unfinished(home.folder)  # another line may have finished it
    if words[:2] == ["python", "-m"]:
        line = f"cd {ROOT} && {line} --quick"
    if "dashboard" in words:
        served(home, line)
        return
    done = home.run(line, timeout=600)
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-2000:]}"


def with_more(line: str, overrides: tuple[str, ...]) -> str:
    """The line and the overrides of what it does not name itself, or a part of."""
    named = {word.partition("=")[0].lstrip("+~") for word in shlex.split(line)}
    named |= {name.partition(".")[0] for name in named if name.startswith("launcher.")}
    return " ".join(
        [line, *(shlex.quote(o) for o in overrides if o.partition("=")[0] not in named)]
    )


def served(home: Home, line: str) -> None:
    """The dashboard says where it is and serves until Ctrl-C."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        shlex.split(line), cwd=home.folder, env=os.environ | {"PATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert "http://localhost:" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode in (0, 130)  # 130: Ctrl-C came before the server was up
