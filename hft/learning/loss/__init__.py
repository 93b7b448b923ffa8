"""What training minimises, per row.

In: the class counts of the training rows, then logits_NC and y_N. Out: loss_N (nats for cross
entropy); the weighted mean over a batch is training's. To add one: `hft/learning/loss/<kind>.py`
with a subclass of LossSpec, `conf/loss/<kind>.yaml`, a test against a closed form.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from hft.spec import Kind


class LossSpec(Kind):
    def build(self, class_counts: np.ndarray) -> nn.Module:
        """A module (logits_NC, y_N) -> loss_N; `class_counts` are those of the training rows."""
        raise NotImplementedError
