"""How a trial ended, as its worker tells it: JSON on the way and in the storage, an Outcome on both
ends.

The worker stores the outcome with the trial and returns it through the engine; the driver settles
the trial by it (hft/study/claims.py).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import ConfigDict, Field

from hft.spec import Spec, SpecError, parse


class Status(StrEnum):
    """What became of one attempt at a trial."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # by a signal
    DIED = "died"  # the worker lost its process, its storage or its disk
    REFUSED = "refused"  # the trial could not begin here, and nor could the next


RETURNED = (Status.INTERRUPTED, Status.DIED, Status.REFUSED)  # the trial goes back, to be retried


class Outcome(Spec):
    """`metrics` are those of hft/study/shown.py, null where the data cannot carry them."""

    # A constraint without a value is broken by infinity; an objective that is no number is for
    # hft/study/claims.py to refuse.
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    status: Status
    values: tuple[float, ...] | None = Field(
        default=None, description="one per objective, of a complete trial"
    )
    constraints: dict[str, float] = Field(
        default={}, description="by how much each is broken; at most 0 where it is kept"
    )
    metrics: dict[str, float | None] = Field(default={}, description="what reports show")
    reason: str = Field(default="", description="why it is not complete")
    log: str = Field(default="", description="path of what the trial printed; empty: here")
    exit_status: int | None = Field(
        default=None, description="128 + the signal that interrupted the trial"
    )


def read_outcome(stored: Any) -> Outcome:
    """The outcome that the plain data in `stored` describe; where they describe none, a failed one
    that says so.
    """
    if not isinstance(stored, dict):
        return Outcome(status=Status.FAILED, reason=f"the outcome is no mapping, got {stored!r}")
    try:
        return parse(Outcome, stored)
    except SpecError as error:
        reason = "; ".join(str(error).splitlines())
        return Outcome(status=Status.FAILED, reason=f"the outcome cannot be read: {reason}")
