"""Features that see the future, and a market small enough to catch them on."""

from __future__ import annotations

from hft.dataset.features.volatility import LogReturn

# A quarter of the market that the command audits; two hours and a half across midnight.
SMALL = ("data.trades_per_s=2", "data.limits_per_s=8", "data.book_interval_ms=1000")


class NextReturn(LogReturn):
    """A feature that knows the next bar."""

    def column(self, frame):
        return super().column(frame).shift(-1)


class CentredMean(LogReturn):
    """A two-sided filter: a small leak at every row."""

    def column(self, frame):
        return super().column(frame).rolling_mean(5, center=True)


class Demeaned(LogReturn):
    """Scaled over the whole sample."""

    def column(self, frame):
        column = super().column(frame)
        return column - column.mean()
