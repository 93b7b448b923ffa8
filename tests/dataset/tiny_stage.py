"""Builders that cost a worker process nothing, for tests of the pool."""

from __future__ import annotations

import os

import polars as pl

from hft.spec import UserError


def build_tiny(number):
    return {"numbers": pl.DataFrame({"n": [number]})}, {"worker": os.getpid()}


def fail(number):
    raise UserError(f"day {number} is broken: mend it")
