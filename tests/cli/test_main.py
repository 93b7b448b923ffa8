"""`hft <command>`: the commands, their help, what mistakes cost, completion."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from hft import __main__ as hft_main
from hft.spec import PACKAGE, UserError

COMMANDS = list(hft_main.COMMANDS)


def test_a_command_is_a_file():
    files = {path.stem for path in (PACKAGE / "cli").glob("[!_]*.py")}
    assert files == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    try:
        status = hft_main.main([command, "--help"])
    except SystemExit as ended:
        status = ended.code
    out = capsys.readouterr().out
    assert status == 0
    assert out.startswith("usage: ")
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("command", ["runs", "studies", "audit", "cache"])
def test_what_lists_has_json(command, capsys):
    with pytest.raises(SystemExit) as ended:
        hft_main.main([command, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_the_help_costs_no_library():
    """0.05 s; the issue's bound is half a second."""
    code = (
        "import sys\n"
        "from hft.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "third = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "assert third <= {'hft', '__main__', '_hft', 'sitecustomize', 'usercustomize'}, third\n"
    )
    clean = [sys.executable, "-S", "-c", code]  # -S: no .pth file imports anything
    done = subprocess.run(
        clean, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"\n    {command} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: hft"),
        (["trian"], "no such command 'trian', did you mean 'train'?"),
        (["x"], f"no such command 'x', the commands: {', '.join(COMMANDS)}"),
        (["--verbose"], "the following arguments are required: <command>"),
    ],
)
def test_a_wrong_command_costs_status_2(arguments, message, capsys):
    try:
        status = hft_main.main(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def a_command(monkeypatch):
    """Replaces `hft check` with a command that does as it is told."""

    def replace(act):
        monkeypatch.setattr(importlib.import_module("hft.cli.check"), "main", act)
        return hft_main.main(["check", "a", "b"])

    return replace


def test_a_command_gets_what_follows_it_and_gives_the_status(a_command):
    got = []
    assert a_command(lambda arguments: got.append(arguments) or 7) == 7
    assert got == [["a", "b"]]


def test_what_the_user_can_mend_is_one_message(a_command, capsys):
    def refuse(_):
        raise UserError("one\ntwo")

    assert a_command(refuse) == 2
    assert capsys.readouterr().err == "error: one\n       two\n"


def test_our_own_mistakes_keep_their_traceback(a_command):
    def fail(_):
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        a_command(fail)


def test_ctrl_c_costs_status_130(a_command):
    def interrupt(_):
        raise KeyboardInterrupt

    assert a_command(interrupt) == 130


def test_a_reader_that_leaves_early_is_no_error():
    code = "from hft.__main__ import main; import sys; sys.exit(main(['check', '--help']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-u", "-c", code],
        cwd=PACKAGE.parent, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hft ", set(COMMANDS)),
        ("hft tr", set(COMMANDS)),
        ("hft train bars=vol", {"bars=volume", "bars=volume_adaptive"}),
        ("hft backtest execution=t", {"execution=taker"}),
        ("hft runs ", set()),
    ],
)
def test_completion(line, offered, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    monkeypatch.setattr(sys, "argv", ["hft", "-sc", "query=bash"])
    assert hft_main.main(["-sc", "query=bash"]) == 0
    assert set(capsys.readouterr().out.split()) == offered


def test_completion_is_installed_for_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hft", "train", "-sc", "install=bash"])
    assert hft_main.main(["train", "-sc", "install=bash"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("-F hydra_bash_completion hft")
