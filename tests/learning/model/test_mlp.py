from __future__ import annotations

import torch

from hft.learning.model.mlp import Mlp


def test_is_a_window_then_layers_of_single_bars():
    """mlp of 2 hidden layers against plain matrix products of each window."""
    torch.manual_seed(0)
    spec = Mlp(
        kind="mlp", window=3, layers=2, channels=4, dropout=0.0, norm="none", activation="relu"
    )
    model = spec.build(2)
    first, second, last = (module for module in model if hasattr(module, "weight"))
    x = torch.randn(1, 8, 2)
    for t in range(2, 8):
        window_FW = x[0, t - 2 : t + 1].T
        hidden = torch.relu((first.weight * window_FW).sum((1, 2)) + first.bias)
        hidden = torch.relu(second.weight[:, :, 0] @ hidden + second.bias)
        torch.testing.assert_close(model(x)[0, t], last.weight[:, :, 0] @ hidden + last.bias)
