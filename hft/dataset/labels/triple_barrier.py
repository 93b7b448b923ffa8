"""The class whose own trade takes its profit before its stop and before its expiry
(docs/definitions.md 5.11-5.14).
"""

from __future__ import annotations

from typing import Literal

from hft.dataset.labels._barriers import BarrierSpec


class TripleBarrier(BarrierSpec):
    kind: Literal["triple_barrier"]
