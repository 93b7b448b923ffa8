"""Bad input at the entry points: one message with file, row or value and remedy, nothing that looks
complete.
"""

from __future__ import annotations

import os
import re
import zipfile

import pytest

from hft.runs.registry import list_runs
from tests.market.data.vendor import (
    MIDNIGHT,
    T0,
    diff,
    quote,
    snapshot,
    trade,
    trade_rows,
    write_lines,
    write_zip,
)
from tests.smoke import QUIET, folders, score_run

SMALL = ("show_config=false", "logger=none", "trainer.epochs=1", *QUIET)
RECORDER = ("experiment=binance_capture", *SMALL)
BINANCE = (
    "experiment=binance_capture",
    "data=binance",
    "data.quotes=none",
    "features=trades_only",
    *SMALL,
)
NAME = "btcusdt_20231114.gz"
N_TRADES = 200
DAY = "2023-11-15"


def recording():
    """Quotes and trades each 100 ms, a book that never changes."""
    book = snapshot(1, T0, bids=[["100.40", "1"]], asks=[["100.60", "2"]])
    lines = [book, diff(1, 2, T0 + 50)]
    for i in range(N_TRADES):
        lines += [quote(i + 1, T0 + 100 * i + 60), trade(i + 1, T0 + 100 * i + 100)]
    return lines


def write_recording(folder, *, replaced=(), lines=None):
    """The recording, with line `i` replaced by `text` for each of `replaced`."""
    lines = lines if lines is not None else recording()
    for i, text in replaced:
        lines[i] = text
    return write_lines(folder / NAME, lines)


def fail(shell, root, *arguments, script="train.py"):
    """The one message of a call that must fail and leave no run that looks complete."""
    ended = shell(script, *arguments, *folders(root))
    assert ended.status == 2, ended.err
    assert ended.err.count("error: ") == 1
    assert "Traceback" not in ended.err
    assert "run=" not in ended.out
    for run in list_runs(root / "runs"):
        assert run.state == "failed"
        assert not (run.folder / "metrics.json").exists()
        assert not (run.folder / "predictions.parquet").exists()
        assert not list(run.folder.rglob("*.safetensors"))
    return ended.err[ended.err.index("error: ") :]


def no_file(folder):
    return folder / NAME


def an_empty_file(folder):
    (folder / NAME).write_bytes(b"")
    return folder / NAME


def a_truncated_gzip(folder):
    path = write_recording(folder)
    path.write_bytes(path.read_bytes()[:-50])
    return path


def a_text_that_is_no_recording(folder):
    return write_lines(folder / NAME, ["time,price", "1,2"])


def a_negative_price(folder):
    return write_recording(folder, replaced=[(21, trade(10, T0 + 1000, p="-1"))])


def a_price_that_is_nan(folder):
    return write_recording(folder, replaced=[(21, trade(10, T0 + 1000, p="NaN"))])


def a_trade_without_price(folder):
    return write_recording(folder, replaced=[(21, trade(10, T0 + 1000).replace('"p"', '"x"'))])


def crossed_quotes(folder):
    crossed = [(2 + 2 * i, quote(i + 1, T0 + 100 * i + 60, b="100.70")) for i in range(20, 120)]
    return write_recording(folder, replaced=crossed)


def quotes_alone(folder):
    return write_recording(
        folder, lines=[line for line in recording() if '"e": "trade"' not in line]
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_file, rf"data\.path: .*{NAME}"),
        (an_empty_file, rf"{NAME}"),
        (a_truncated_gzip, rf"{NAME}.*(truncated|incomplete|ends)"),
        (a_text_that_is_no_recording, rf"{NAME}"),
        (a_negative_price, rf"{NAME}.*-1"),
        (a_price_that_is_nan, rf"(?i){NAME}.*nan"),
        (a_trade_without_price, rf"{NAME}"),
        (crossed_quotes, r"btcusdt_20231114.gz: 100 of 200 rows of quotes have bid >= ask"),
        (quotes_alone, r"trade"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_bad_recording(shell, tmp_path, make, message):
    data = tmp_path / "data"
    data.mkdir()
    printed = fail(shell, tmp_path, *RECORDER, f"data.path={make(data)}")
    assert re.search(message, printed), printed


def archive(folder, text=None, **arguments):
    times = list(range(MIDNIGHT, MIDNIGHT + 100 * N_TRADES, 100))
    return write_zip(folder, "trades", DAY, text or trade_rows(1, times), **arguments)


def a_truncated_zip(folder):
    path = archive(folder, checksum=False)
    path.write_bytes(path.read_bytes()[:-100])
    return "data.require_checksum=false"


def a_checksum_mismatch(folder):
    path = archive(folder)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("more.txt", "x")
    return ""


def a_missing_checksum(folder):
    archive(folder, checksum=False)
    return ""


def a_missing_column(folder):
    rows = trade_rows(1, [MIDNIGHT, MIDNIGHT + 100]).splitlines()
    archive(folder, "\n".join(row.rpartition(",")[0] for row in rows) + "\n")
    return ""


def a_wrong_column(folder):
    archive(folder, trade_rows(1, [MIDNIGHT]).replace("price", "prize"))
    return ""


def an_empty_zip(folder):
    archive(folder, " ")
    return ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (a_truncated_zip, r"BTCUSDT-trades-2023-11-15\.zip"),
        (a_checksum_mismatch, r"BTCUSDT-trades-2023-11-15\.zip.*CHECKSUM"),
        (a_missing_checksum, r"CHECKSUM.*require_checksum"),
        (a_missing_column, r"BTCUSDT-trades-2023-11-15.*the header lacks is_buyer_maker"),
        (a_wrong_column, r"BTCUSDT-trades-2023-11-15.*prize"),
        (an_empty_zip, r"BTCUSDT-trades-2023-11-15"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_bad_archive(shell, tmp_path, make, message):
    data = tmp_path / "data"
    data.mkdir()
    extra = make(data)
    printed = fail(shell, tmp_path, *BINANCE, f"data.path={data}", *([extra] if extra else []))
    assert re.search(message, printed, re.DOTALL), printed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.start=2023-11-20"], r"data\.start: 2023-11-20 lies outside the data"),
        (["data.start=2023-11-14T23:00", "data.end=2023-11-14T23:30"], r"no trades|no .*trade"),
        (
            ["bars.size=100000"],
            r"bars\.size=100000 trades gives no bar: the data hold 200 trades in all; "
            r"try bars\.size=2",
        ),
        (
            [],
            r"splits: train has 0 usable rows, needs at least 50; "
            r".*too few bars for the labels' horizon or the",
        ),
        (
            ["bars.size=1", "labels.horizon=500"],
            r"splits: train has 0 usable rows, .* have no label",
        ),
        (["bars.size=1", "model.levels=6"], r"lack known features over the receptive field"),
    ],
)
def test_a_market_that_does_not_suit_the_choices(shell, tmp_path, overrides, message):
    data = tmp_path / "data"
    data.mkdir()
    write_recording(data)
    printed = fail(shell, tmp_path, *RECORDER, f"data.path={data}", *overrides)
    assert re.search(message, " ".join(printed.split())), printed


# Stored things that were damaged


def test_a_damaged_cache_entry_is_built_again(shell, smoke, tmp_path, caplog):
    run = smoke.copy(tmp_path)
    score_run(tmp_path, run.id, "logger=none", "name=before")
    for entry in (tmp_path / "cache").glob("*/*/*.parquet"):
        entry.write_bytes(entry.read_bytes()[:-20])
    card = score_run(tmp_path, run.id, "logger=none", "name=after")
    assert card.plain() | {"notes": None} == smoke.card.plain() | {"notes": None}
    for stage in ("ticks", "bars", "columns", "features", "labels"):
        assert [
            r
            for r in caplog.messages
            if f"/{stage}/" in r and "is corrupt" in r and "building it again" in r
        ]


def weights_of(run):
    return run.folder / "fold-0" / "seed-0" / "weights.safetensors"


def cut_weights(run):
    path = weights_of(run)
    path.write_bytes(path.read_bytes()[:-10])


def pickled_weights(run):
    weights_of(run).write_bytes(b"\x80\x04cposix\nsystem\n(S'touch /tmp/owned'\ntR.")


def no_weights(run):
    weights_of(run).unlink()


def other_features(run):
    text = (run.folder / "config.json").read_text()
    (run.folder / "config.json").write_text(re.sub(r'"queue_imbalance": \{[^}]*\},', "", text))


def no_config(run):
    (run.folder / "config.json").unlink()


def torn_config(run):
    (run.folder / "config.json").write_text((run.folder / "config.json").read_text()[:500])


def no_strategy(run):
    (run.folder / "fold-0" / "seed-0" / "strategy.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            cut_weights,
            r"weights\.safetensors: not a complete safetensors file .*; train again or restore it",
        ),
        (pickled_weights, r"weights\.safetensors: not a complete safetensors file"),
        (no_weights, r"weights\.safetensors: weights cannot be read"),
        (
            other_features,
            r"weights\.safetensors: weights of another config: .* must be .*; "
            r"use the model, features",
        ),
        (no_config, r"config\.json: missing, so .* is no complete run"),
        (torn_config, r"config\.json: cannot be read"),
        (no_strategy, r"strategy\.json: missing"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_damaged_run(shell, smoke, tmp_path, damage, message):
    run = smoke.copy(tmp_path)
    damage(run)
    ended = shell("backtest.py", f"ckpt={run.id}", "name=again", "logger=none", *folders(tmp_path))
    assert ended.status == 2, ended.err
    assert "Traceback" not in ended.err
    assert re.search(message, ended.err), ended.err
    assert not (run.folder / "backtest" / "again" / "scorecard.json").exists()


# Folders that cannot be written


@pytest.mark.parametrize("which", ["runs", "cache"])
def test_a_folder_that_is_a_file(shell, tmp_path, which):
    (tmp_path / "file").write_text("")
    arguments = [
        "experiment=smoke",
        *SMALL,
        *folders(tmp_path),
        f"paths.{which}={tmp_path / 'file' / 'below'}",
    ]
    ended = shell("train.py", *arguments)
    assert ended.status == 2
    assert f"{tmp_path / 'file'}" in ended.err
    assert "cannot be written" in ended.err
    assert (
        f"choose another{' folder' if which == 'runs' else ''}: paths.{which}=<folder>" in ended.err
    )
    assert "Traceback" not in ended.err
    assert all(run.state == "failed" for run in list_runs(tmp_path / "runs"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(shell, tmp_path):
    (tmp_path / "runs").mkdir(mode=0o500)
    printed = fail(shell, tmp_path, "experiment=smoke", *SMALL)
    assert "cannot be written" in printed
    assert list((tmp_path / "runs").iterdir()) == []
