"""What the generated pages say beside what the code decides."""

from __future__ import annotations

GENERATED = "<!-- Written by `python -m docs.generate`; edit the code or docs/columns_text.py. -->"
ROOT_FACTS = ("spec", "clock", "schema", "metrics")  # files beside the wings that wings import

CONFIGURATION = f"""{GENERATED}

# Configuration

Every group, kind and field. A group is chosen by its name (`bars=volume`), a field is set by its
path (`bars.size=0.8`), a set takes several files (`features=[micro,book]`) and single entries
(`features.kyle_lambda.window=20`). `python train.py --help` shows the groups on one screen,
`python train.py --cfg job` what a command line would run.

*shipped* is the value in the YAML of the kind; `required` has to be given; `${{...}}` takes the
value of another field; what is empty for a backtest is taken from its run. *role* says what a field
is to a run:

- `number`: it changes numbers, so it is part of what a run, a study and a cache entry are.
- `place`: where something lies on this machine.
- `shown`: what is printed, logged or kept on the way; no number depends on it.
- `extent`: how much is asked for (days, trials); each part is the same whatever the extent.
"""

FEES = """Schedules by name, a set: one simulation is scored under all of them. Sources and ladders:
[definitions.md](definitions.md) 3. In bps of notional; a negative maker fee is a rebate."""

OVERLAYS = {
    "experiment": "Files that choose kinds and set fields across groups. Each has its page in "
    "experiments/.",
    "debug": "Files that set fields for debugging, on top of an experiment.",
}

COLUMNS = f"""{GENERATED}

# Columns and keys

What every parquet and JSON file holds that we write. Times are int64 nanoseconds since 1970, UTC;
prices are in quote currency and quantities in base currency, float64; `_bps` are basis points.
Everything after BARS joins on `bar`, never on a time.
"""

FRAME = {
    "TRADES": "In the stage cache, per UTC day, as `ticks/<key>/trades.parquet`.",
    "QUOTES": "In the stage cache, per UTC day, as `ticks/<key>/quotes.parquet`.",
    "BOOK": "In the stage cache, per UTC day, as `ticks/<key>/book.parquet`. `k` counts levels "
    "from the best, 0, to `data.book_levels` - 1.",
    "BARS": "In the stage cache, per UTC day, as `bars/<key>/bars.parquet`; `bar` counts anew "
    "there, and over the loaded range in memory.",
    "FEATURES": "In the stage cache as `features/<key>/features.parquet`. Row i uses nothing later "
    "than `ts` of bar i. `columns/<key>/columns.parquet`, per UTC day, holds what each bar's ticks "
    "add up to: float64, under names without a window.",
    "LABELS": "In the stage cache as `labels/<key>/labels.parquet`. y, t_end, ret_bps and weight "
    "are null together where the class is unknowable or the bar carries no decision.",
    "PREDICTIONS": "`predictions.parquet` of a run, and of each `fold-<f>/seed-<s>/`.",
    "LEDGER": "`backtest/<name>/ledger.parquet`: one row per position.",
    "DAILY": "`daily.parquet` of a run, and of each `fold-<f>/seed-<s>/`: what each UTC day of "
    "`select` closed; a day without a closed position is a row of zeros.",
}

_TS_RECV = "when we could have known of it, ns; never decreases"
_TS_EXCH = "the exchange's own time, ns"
COLUMN = {
    "TRADES": {
        "ts_recv": _TS_RECV,
        "ts_exch": _TS_EXCH,
        "id": "the exchange's id; the row's ordinal where the source has none",
        "price": "of the print",
        "qty": "of the print",
        "side": "of the taker: +1 bought, -1 sold, 0 unknown",
    },
    "QUOTES": {
        "ts_recv": _TS_RECV,
        "ts_exch": _TS_EXCH,
        "seq": "the exchange's update id; the row's ordinal where the source has none",
        "bid": "best bid",
        "bid_qty": "quantity at the best bid",
        "ask": "best ask",
        "ask_qty": "quantity at the best ask",
    },
    "BOOK": {
        "ts_recv": _TS_RECV,
        "ts_exch": _TS_EXCH,
        "seq": "id of the last update that the row knows",
        "bid_k": "price of level k, best first; null where the book has fewer",
        "bid_qty_k": "quantity at it",
        "ask_k": "price of level k, best first; null where the book has fewer",
        "ask_qty_k": "quantity at it",
    },
    "BARS": {
        "bar": "running number over the loaded range",
        "segment": "number of gaps before the bar's end; nothing rolls across a change",
        "partial": "closed by UTC midnight before it met its condition",
        "ts_open": "time of its first trade; of time bars the beginning of the interval",
        "ts": "when the bar is known: its closing trade; of time bars the end of the interval",
        "open": "first price",
        "high": "highest price",
        "low": "lowest price",
        "close": "last price",
        "vwap": "turnover / volume",
        "volume": "traded quantity",
        "turnover": "traded price times quantity",
        "n_trades": "number of trades",
        "buy_volume": "quantity that takers bought; unknown sides count in neither",
        "sell_volume": "quantity that takers sold",
        "bid": "best bid known strictly before `ts`; null before the day's first quote",
        "ask": "best ask then",
        "bid_qty": "quantity at the best bid then",
        "ask_qty": "quantity at the best ask then",
    },
    "FEATURES": {
        "bar": "of BARS",
        "<feature>": "a column per entry of `features`, in the order of the set; null where "
        "unknown, never nan",
    },
    "LABELS": {
        "bar": "of BARS",
        "y": "0 hold, 1 buy, 2 sell",
        "t_end": "time of the print that ends it, or of the close of bar t + horizon",
        "ret_bps": "signed return of the price from entry to t_end, whatever the class",
        "weight": "raw weight in the loss, >= 0 of any scale",
    },
    "PREDICTIONS": {
        "bar": "of BARS",
        "ts": "of the bar",
        "fold": "number of the fold",
        "seed": "seed of the training",
        "split": "`tune` or `select`",
        "path": "0; the paths of combinatorial folds are in the backtest",
        "p_hold": "calibrated probability of hold",
        "p_buy": "calibrated probability of buy",
        "p_sell": "calibrated probability of sell",
        "y": "true class; null where it cannot be known, and in runs before 0.2.0",
    },
    "LEDGER": {
        "bar": "at whose close the trade was decided",
        "fold": "whose model decided",
        "side": "+1 long, -1 short",
        "qty": "base quantity of one unit of quote currency at the entry",
        "ts_entry": "of the entry fill",
        "price_entry": "of the entry fill",
        "maker_entry": "whether the entry rested in the book",
        "ts_exit": "of the exit fill",
        "price_exit": "of the exit fill",
        "maker_exit": "whether the exit rested in the book",
        "reason": "take_profit, stop_loss, time (expired), or end (of what may be read)",
        "gross_bps": "side * (price_exit / price_entry - 1), before fees, spread paid",
        "markout_100ms_bps": "side * move from the entry price to the mid 100 ms later; null "
        "without quotes",
        "markout_1s_bps": "the same 1 s later",
        "markout_10s_bps": "the same 10 s later",
    },
    "DAILY": {
        "fold": "number of the fold",
        "seed": "seed of the training",
        "day": "UTC day on which the positions were closed",
        "gross_bps": "sum of their gross returns",
        "trades": "how many were closed",
        "net_bps@<schedule>": "sum of their returns after the fees of a schedule",
    },
}

METRICS = """`metrics.json` of a run and of each `fold-<f>/seed-<s>/`, and what loggers get. Names
are `<place>/<name>`, where the place is a split (`tune`, `select`), `train`, `labels`, or the name
of a backtest. Metrics of one fold and seed begin with `fold-<f>/seed-<s>/`, those of the baseline
with `baseline/`; over several seeds `/sd` and `/worst` follow. A number that is not finite is null.
Definitions: [definitions.md](definitions.md)."""

SCORECARD = """`backtest/<name>/scorecard.json`; `scorecards.json` has one per series (fold, path,
seed, baseline) by name. A number that the data cannot carry is null, with its reason beside it."""
CARDS = {
    "Scorecard": "The card:",
    "ScheduleScore": "Each entry of its `schedules`, by the schedule's name:",
}
CARD = {  # keys whose specs carry no description
    "days": "length of the period in days",
    "trades": "number of positions",
    "long_share": "share of long positions; null without any",
    "break_even_high_bps": "upper end of its 95 % interval; null below 30 trades",
    "verdict": "one sentence",
    "schedules": "see below",
    "maker_bps": "the schedule's fee of a resting fill",
    "taker_bps": "the schedule's fee of a taking fill",
    "net_bps_total": "sum of net returns",
    "sharpe_reason": "why there is no Sharpe ratio; empty where there is one",
    "max_drawdown_bps": "largest fall of the running net return",
}

FILES = """## Other files of a run

| file | keys |
|---|---|
| `config.json` | `config` (the parsed config), `data_keys` (`span`, `bars`, `features`, `labels`: \
what it was trained on), `overrides` (what was typed), `versions`, `git` (`commit`, `dirty`) |
| `state.json` | `state` (new, running, done, pruned, failed, interrupted), `started_ns`, \
`changed_ns` |
| `test_openings.json`, `final_openings.json` | `openings`: `time` and `config_sha256` of each \
reading of the period |
| `fold-<f>/seed-<s>/strategy.json` | what the strategy learnt on `tune`: `trades`, `theta`, \
`tune_trades`, `tune_net_bps`, `reason` |
| `fold-<f>/seed-<s>/weights.safetensors` | the network with its transforms and calibration |
| `fold-<f>/seed-<s>/last.ckpt` | the state of training, for resuming alone |
| `.sha256` beside a parquet file | its hash, verified before it is read |

## A study

| file | contents |
|---|---|
| `study.json` | `name`, `version`, `storage`, `code` and `conf` (hashes), `base` (the config that \
all trials share), `space` (a dimension per path), `sweep` (its settings), `overrides` |
| `results.parquet` | a row per trial: `number`, `state`, the objectives, the metrics that reports \
show, a column per path of the space, `constraint/<name>`, `feasible`, `origin`, `attempt`, \
`retry_of`, `started`, `duration_s`, `folder`, `reason` |
| `points.parquet` | of a grid over `seed=`, a row per point, best first: its parameters, \
`trials`, and of each objective and metric the mean and `<name>/sd` (ddof 1) |
| `best/` | what scoring the best trial needs, and `next.txt` with the lines to paste |
| `report.html` | tables and figures of the study |
"""
