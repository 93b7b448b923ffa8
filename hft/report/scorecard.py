"""A ledger in, a Scorecard under every fee schedule at once out; hft/report/tables.py prints it,
hft/report/figures.py draws its equity.

Fills do not depend on fees, so one simulation is scored under all of them. A number that the data
cannot carry is None, with the reason beside it. To add one: a field here, computed in
hft/statistics, and its line in hft/metrics.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field

from hft.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_S
from hft.spec import Spec
from hft.statistics.bootstrap import Interval
from hft.statistics.returns import break_even, max_drawdown
from hft.statistics.sharpe import sharpe
from hft.system.files import write_json
from hft.system.parquet import write_frame
from hft.trading.fees import FeeSchedule
from hft.trading.ledger import MARKOUTS_MS

FUNDING_HOURS = 8  # at 00, 08 and 16 UTC on the perpetuals of docs/definitions.md 3
MARKOUTS = tuple(MARKOUTS_MS)
Fees = Mapping[str, FeeSchedule]


class ScheduleScore(Spec):
    maker_bps: float
    taker_bps: float
    net_bps_trade: float | None = Field(
        description="mean net return per trade, bps; None without trades"
    )
    net_bps_day: float = Field(
        description="net return per calendar day, bps of the position's notional"
    )
    net_bps_total: float
    hit_rate: float | None = Field(
        description="share of trades with a net gain; None without trades"
    )
    sharpe: float | None = Field(description="yearly; None where sharpe_reason says why")
    psr: float | None = Field(description="probability that the true Sharpe ratio is above 0")
    sharpe_reason: str
    max_drawdown_bps: float
    verdict: str


class Scorecard(Spec):
    start: int = Field(description="ns UTC")
    end: int = Field(description="ns UTC, exclusive")
    days: float
    trades: int
    turnover_day: float = Field(description="notional traded per day per unit of position")
    long_share: float | None
    holding_s: float | None = Field(description="median time in position, s")
    reasons: dict[str, int] = Field(description="trades by how they ended")
    markouts: dict[str, float | None] = Field(
        description="mean move in the trade's favour after entry, bps"
    )
    gross_bps_trade: float | None = Field(
        description="mean return per trade before fees, spread paid, bps"
    )
    break_even_bps: float | None = Field(
        description="cost one way at which the trades earn nothing, bps"
    )
    break_even_low_bps: float | None = Field(
        description="lower end of its 95 % interval; None below 30 trades"
    )
    break_even_high_bps: float | None
    notes: tuple[str, ...] = Field(
        description="what the data forced to assume, and what to bear in mind"
    )
    verdict: str
    schedules: dict[str, ScheduleScore]


def score(
    ledger: pl.DataFrame,
    fees: Fees,
    start: int,
    end: int,
    *,
    notes: Sequence[str] = (),
    seed: int = 0,
) -> Scorecard:
    """The trades of [start, end) under every schedule; `notes` (the execution's assumptions, ...)
    go along.
    """
    # One interval for all schedules, because the gross returns do not depend on fees.
    margin = break_even(ledger["gross_bps"].to_numpy(), seed=seed)
    days = (end - start) / NS_PER_DAY
    held_ns = (ledger["ts_exit"] - ledger["ts_entry"]).to_numpy()
    traded = ledger["qty"] * (ledger["price_entry"] + ledger["price_exit"])
    # Ties by name: polars counts in no fixed order, and one ledger must give one file.
    reasons = ledger["reason"].value_counts().sort("count", "reason", descending=[True, False])
    return Scorecard(
        start=start,
        end=end,
        days=days,
        trades=len(ledger),
        # Entries and exits both count as notional (docs/definitions.md 2, turnover).
        turnover_day=float(traded.sum()) / days,
        long_share=_mean(ledger["side"] > 0),
        holding_s=float(np.median(held_ns)) / NS_PER_S if len(ledger) else None,
        reasons=dict(reasons.iter_rows()),
        markouts={name: _mean(ledger[name]) for name in MARKOUTS},
        gross_bps_trade=_mean(ledger["gross_bps"]),
        break_even_bps=margin.mean,
        break_even_low_bps=margin.low,
        break_even_high_bps=margin.high,
        notes=(*notes, *_cautions(ledger, days)),
        verdict=_verdict(ledger, fees, margin),
        schedules={name: _score_under(s, ledger, margin, start, end) for name, s in fees.items()},
    )


def net_bps_day(
    ledger: pl.DataFrame, schedule: FeeSchedule, start: int, end: int, *, min_trades: int
) -> float:
    """The objective: net bps per calendar day of [start, end). With fewer than `min_trades` trades
    a gain is 0.
    """
    value = float(schedule.net_bps(ledger).sum()) / ((end - start) / NS_PER_DAY)
    # Otherwise one lucky trade could win a sweep. A loss stays, because a few bad trades must not
    # look as good as none.
    return value if len(ledger) >= min_trades else min(value, 0.0)


def _score_under(
    schedule: FeeSchedule, ledger: pl.DataFrame, margin: Interval, start: int, end: int
) -> ScheduleScore:
    net = schedule.net_bps(ledger)
    ratio = sharpe(ledger["ts_exit"].to_numpy(), net, start=start, end=end)
    return ScheduleScore(
        maker_bps=schedule.maker_bps,
        taker_bps=schedule.taker_bps,
        net_bps_trade=_mean(net),
        net_bps_day=float(net.sum()) / ((end - start) / NS_PER_DAY),
        net_bps_total=float(net.sum()),
        hit_rate=_mean(net > 0),
        sharpe=ratio.yearly,
        psr=ratio.psr,
        sharpe_reason=ratio.reason,
        max_drawdown_bps=max_drawdown(net),
        verdict=_verdict_under(schedule.one_way_bps(ledger), len(net), margin),
    )


def _verdict_under(cost_bps: float, n_trades: int, margin: Interval) -> str:
    if margin.mean is None:
        return "no trades"
    if margin.low is None or margin.high is None:
        return f"too few trades ({n_trades})"
    if margin.mean <= 0:
        return "loses before costs"
    # The interval decides what is said, not the mean alone (docs/definitions.md 5.16).
    if margin.mean > cost_bps:
        return "pays" if margin.low > cost_bps else "pays, within noise"
    return "below cost" if margin.high < cost_bps else "below cost, within noise"


def _verdict(ledger: pl.DataFrame, fees: Fees, margin: Interval) -> str:
    """One sentence over all schedules that cost anything."""
    if margin.mean is None:
        return "no trades"
    if margin.low is None or margin.high is None:
        # Below 30 trades there is no interval, and these words (docs/definitions.md 5.16).
        return f"too few trades ({len(ledger)}): no conclusion"
    interval = f"break-even {margin.mean:.2f} bps one way [{margin.low:.2f}, {margin.high:.2f}]"
    if margin.mean <= 0:
        return f"loses before costs; {interval}"
    noise = "" if margin.low > 0 else ", gross within noise of zero"
    # Without cost every positive gross pays, so that `maker_free` would answer for nothing.
    costs = {name: cost for name, s in fees.items() if (cost := s.one_way_bps(ledger)) > 0}
    if not costs:
        return f"gross positive{noise}; {interval}"
    paying = {name: cost for name, cost in costs.items() if margin.mean > cost}
    if not paying:
        cheapest = min(costs, key=costs.__getitem__)
        lowest = f"lowest {costs[cheapest]:g} bps, {cheapest}"
        return f"gross positive but below every fee ({lowest}){noise}; {interval}"
    sure = sum(margin.low > cost for cost in paying.values())
    under = f"pays under {len(paying)} of {len(costs)} schedules, beyond noise under {sure}"
    return f"{under}{noise}; {interval}"


def _cautions(ledger: pl.DataFrame, days: float) -> list[str]:
    cautions = []
    if days < 1:
        cautions.append(f"the period is {days * 24:.2f} hours: figures per day extrapolate")
    # Slots of 8 hours since 1970 begin at the stamps: a position was held across one where it ends
    # in a later slot. Funding is left out (docs/definitions.md 3).
    stamps = ledger.select(pl.col("ts_entry", "ts_exit") // (FUNDING_HOURS * NS_PER_HOUR))
    held_over = int((stamps["ts_exit"] > stamps["ts_entry"]).sum())
    if held_over:
        cautions.append(
            f"funding is left out; {held_over} positions were held across a stamp (00, 08, 16 UTC)"
        )
    return cautions


def _mean(values: pl.Series | np.ndarray) -> float | None:
    mean = pl.Series(values).mean()
    return mean if isinstance(mean, float) else None  # polars gives None for no rows


def save_scorecard(card: Scorecard, ledger: pl.DataFrame, folder: Path) -> None:
    """scorecard.json and ledger.parquet, each whole or absent."""
    # The card comes last: where there is a card, its trades are there too.
    write_frame(folder / "ledger.parquet", ledger)
    write_json(folder / "scorecard.json", card.plain(), indent=1)


def save_scorecards(cards: Mapping[str, Scorecard], folder: Path) -> None:
    """scorecards.json: the cards of all series of one scoring, by name."""
    content = {name: card.plain() for name, card in cards.items()}
    write_json(folder / "scorecards.json", content, indent=1)
