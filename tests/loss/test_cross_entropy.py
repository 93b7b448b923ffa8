from __future__ import annotations

import math

import numpy as np
import torch

from hft.loss.cross_entropy import CrossEntropy


def test_is_minus_log_p_of_the_true_class():
    loss = CrossEntropy(kind="cross_entropy").build(np.array([1, 1, 1]))
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]).log()
    torch.testing.assert_close(loss(logits, torch.tensor([0, 1])), -torch.tensor([0.5, 0.3]).log())
    assert math.isclose(float(loss(torch.zeros(1, 3), torch.tensor([2]))), math.log(3), rel_tol=1e-6)
