"""Markets made by hand for label tests: prints bar by bar, and quotes, without any bar builder."""

from __future__ import annotations

import numpy as np
import polars as pl
import yaml
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hft.clock import NS_PER_MS
from hft.dataset.labels import LabelSpec
from hft.market.ticks import Ticks
from hft.schema import BARS, QUOTES, TRADES, book_columns, empty
from hft.spec import PACKAGE, Room, parse

Print = tuple[int, float]  # time in ms, price
CONF = PACKAGE.parent / "conf"


def shipped(group: str, name: str, **changes) -> dict:
    """The YAML of a kind with its interpolations resolved, then changed."""
    node = yaml.safe_load((CONF / group / f"{name}.yaml").read_text()) | changes
    return OmegaConf.to_container(
        OmegaConf.create({"latency_ms": 100.0, group: node}), resolve=True
    )[group]


def label_spec(name: str, **changes) -> LabelSpec:
    return parse(Room("hft.dataset.labels").load(name), shipped("labels", name, **changes))


def market(
    prints: list[list[Print]],
    *,
    quotes: list[tuple[int, float, float]] = (),
    gaps_ms: list[int] = (),
) -> tuple[Ticks, pl.DataFrame]:
    """Ticks and BARS of these prints, one inner list per bar. `gaps_ms` are the times of the first
    events after gaps.
    """
    flat = [p for bar in prints for p in bar]
    ts, price = np.array([p[0] for p in flat]) * NS_PER_MS, [p[1] for p in flat]
    trades = pl.DataFrame(
        {
            "ts_recv": ts,
            "ts_exch": ts,
            "id": range(len(flat)),
            "price": price,
            "qty": [1.0] * len(flat),
        }
        | {"side": [0] * len(flat)},
        schema=TRADES,
    )
    ts_quote = [q[0] * NS_PER_MS for q in quotes]
    ones, seq = [1.0] * len(quotes), list(range(len(quotes)))
    bid, ask = [q[1] for q in quotes], [q[2] for q in quotes]
    columns = (ts_quote, ts_quote, seq, bid, ones, ask, ones)
    frame = pl.DataFrame(dict(zip(QUOTES, columns, strict=True)), schema=QUOTES)
    gaps = np.array(gaps_ms, np.int64) * NS_PER_MS
    end = max([int(ts[-1]), *ts_quote]) + 1
    ticks = Ticks(
        trades=trades, quotes=frame, book=empty(book_columns(0)), start=0, end=end, gaps=gaps
    )
    return ticks, _bars(prints, gaps)


def _bars(prints: list[list[Print]], gaps: np.ndarray) -> pl.DataFrame:
    rows = []
    for bar, inside in enumerate(prints):
        prices = [p[1] for p in inside]
        ts = inside[-1][0] * NS_PER_MS
        row = dict.fromkeys(BARS, None) | {
            "bar": bar,
            "segment": int(np.sum(gaps <= ts)),
            "partial": False,
            "ts_open": inside[0][0] * NS_PER_MS,
            "ts": ts,
            "open": prices[0],
            "high": max(prices),
            "low": min(prices),
            "close": prices[-1],
            "n_trades": len(inside),
        }
        rows.append(row)
    return pl.DataFrame(rows, schema=BARS, orient="row")


@st.composite
def markets(draw) -> tuple[Ticks, pl.DataFrame]:
    """Small markets with ties in time, jumps, gaps between bars, and many, few or no quotes."""
    n_bars, with_quotes = draw(st.integers(4, 18)), draw(st.booleans())
    now, price, prints, quotes, gaps = 1_000_000, 100.0, [], [], []
    for _ in range(n_bars):
        if prints and draw(st.integers(0, 19)) == 0:
            now += 400_000
            gaps.append(now)
        bar = []
        for _ in range(draw(st.integers(1, 4))):
            now += (
                draw(st.sampled_from([0, 0, 1, 2, 7])) if bar or not gaps or gaps[-1] != now else 0
            )
            price = round(price + draw(st.sampled_from([-0.3, -0.1, 0.0, 0.1, 0.3])), 1)
            bar.append((now, price))
            if with_quotes and draw(st.integers(0, 2)) == 0:
                at = now + draw(st.sampled_from([0, 0, 1, 3]))
                quotes.append(
                    (at, round(price - 0.1, 1), round(price + draw(st.sampled_from([0.1, 0.2])), 1))
                )
        prints.append(bar)
    return market(prints, quotes=sorted(quotes), gaps_ms=gaps)
