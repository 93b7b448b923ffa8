from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hft.learning.loss.cross_entropy import CrossEntropy


def make(**change):
    return CrossEntropy(
        **{"kind": "cross_entropy", "alpha": "none", "beta": 1.0, "label_smoothing": 0.0} | change
    )


def test_is_minus_log_p_of_the_true_class():
    loss = make().build(np.array([1, 1, 1]))
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]).log()
    torch.testing.assert_close(loss(logits, torch.tensor([0, 1])), -torch.tensor([0.5, 0.3]).log())
    assert math.isclose(
        float(loss(torch.zeros(1, 3), torch.tensor([2]))), math.log(3), rel_tol=1e-6
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_equals_torch_with_smoothed_labels(smoothing):
    logits, y = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3
    expected = torch.nn.functional.cross_entropy(
        logits, y, reduction="none", label_smoothing=smoothing
    )
    torch.testing.assert_close(
        make(label_smoothing=smoothing).build(np.ones(3))(logits, y), expected
    )


def test_alpha_weighs_whole_rows():
    """Smoothed or not: torch would weigh the smoothed part by its own classes, which moves what p
    means.
    """
    logits, y = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    plain = make(label_smoothing=0.2).build(np.ones(3))(logits, y)
    weighed = make(label_smoothing=0.2, alpha=(1.0, 3.0, 0.5)).build(np.ones(3))(logits, y)
    torch.testing.assert_close(weighed, plain * torch.tensor([1.0, 3.0, 0.5])[y])
