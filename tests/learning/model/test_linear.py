from __future__ import annotations

import torch

from hft.learning.model.linear import Linear


def test_is_a_weighted_sum_of_the_last_window_bars():
    torch.manual_seed(0)
    model = Linear(kind="linear", window=3).build(2)
    x = torch.randn(1, 8, 2)
    for t in range(2, 8):
        window_FW = x[0, t - 2 : t + 1].T
        expected = (model.conv.weight * window_FW).sum((1, 2)) + model.conv.bias
        torch.testing.assert_close(model(x)[0, t], expected)
