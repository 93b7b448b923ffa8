"""Networks x_BTF -> logits_BTC that predict at every bar.

In: the number of features. Out: a network, not yet trained. A network is causal: the logits of bar
t depend on the inputs t - R + 1 .. t, R its `receptive_field`, and it keeps nothing between calls.
To add one: `hft/learning/model/<kind>.py` with a subclass of ModelSpec and
`conf/model/<kind>.yaml`; the conformance suite in tests/learning/model checks the rest.

Legend: B sequences, T bars, F features, C classes (hold, buy, sell).
"""

from __future__ import annotations

from hft.learning.model._tcn import CausalNetwork as CausalNetwork
from hft.spec import Kind


class ModelSpec(Kind):
    @property
    def receptive_field(self) -> int:
        """Bars that one prediction sees, its own included."""
        raise NotImplementedError

    def build(self, n_features: int) -> CausalNetwork:
        """x_BTF -> logits_BTC; initial weights come from torch's global generator."""
        raise NotImplementedError
