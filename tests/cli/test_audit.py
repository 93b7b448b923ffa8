"""`hft audit` fails where anything sees the future, and says so as a table or as JSON."""

from __future__ import annotations

import json

import pytest

from hft.cli import audit
from hft.runs import lookahead
from tests.runs.leaky import SMALL, CentredMean, Demeaned, NextReturn


def small_main(monkeypatch, capsys, *overrides):
    """The command on what is planted; its status and what it printed."""
    monkeypatch.setattr(lookahead, "N_CUTS", 2)
    status = audit.main([*SMALL, *overrides])
    return status, capsys.readouterr()


def only(monkeypatch, room, kinds):
    """What the audit finds to audit: `kinds` in `room`, one clean kind in the others."""
    shipped, features = lookahead.shipped, lookahead.shipped_features

    def few(name):
        if name == room:
            return kinds
        return [next(shipped(name))]

    monkeypatch.setattr(lookahead, "shipped", few)
    clean = [next((name, spec) for name, spec in features() if name == "log_return")]
    monkeypatch.setattr(
        lookahead, "shipped_features", lambda: kinds if room == "features" else clean
    )


@pytest.mark.parametrize("leaky", [NextReturn, CentredMean, Demeaned])
def test_a_planted_leaky_feature_fails_the_command(monkeypatch, capsys, leaky):
    only(monkeypatch, "features", [("planted", leaky(kind="log_return", window=1))])
    status, printed = small_main(monkeypatch, capsys)
    assert status == 1
    assert printed.out.splitlines()[-1] == "4 kinds audited, 1 see the future"
    (row,) = [line for line in printed.out.splitlines() if "planted" in line]
    assert "clean" not in row


def test_verdicts_as_json(monkeypatch, capsys):
    only(monkeypatch, "features", [("planted", NextReturn(kind="log_return", window=1))])
    status, printed = small_main(monkeypatch, capsys, "--json")
    assert status == 1
    findings = json.loads(printed.out)
    assert [f["room"] for f in findings] == ["bars", "features", "labels", "model"]
    assert [f["kind"] for f in findings if f["leak"]] == ["planted"]
    assert all(f["rows"] > 0 for f in findings)


def test_a_clean_selection_passes_the_command(monkeypatch, capsys):
    only(monkeypatch, "model", [])
    status, printed = small_main(monkeypatch, capsys)
    assert status == 0
    assert printed.out.splitlines()[-1] == "3 kinds audited, 0 see the future"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bars.sise=3", "Could not override 'bars.sise'"),
        ("bars.size=0", "bars.size: must be greater than or equal to 1, got 0"),
        ("bars=dollar", "bars: experiment=smoke chose 'tick'"),
        ("bars.size=1000000000", "gives no bar"),
    ],
)
def test_what_cannot_be_audited_has_its_own_status(monkeypatch, capsys, override, message):
    status, printed = small_main(monkeypatch, capsys, override)
    assert status == 2
    assert printed.err.startswith("error: ")
    assert message in printed.err
