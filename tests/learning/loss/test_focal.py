"""Against hand values and the plain formula."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hft.learning.loss.focal import Focal
from hft.spec import Kind, Room, Spec, SpecError, parse


def focal(gamma, alpha="none", counts=(1, 1, 1), *, beta=1.0, label_smoothing=0.0):
    spec = Focal(kind="focal", gamma=gamma, alpha=alpha, beta=beta, label_smoothing=label_smoothing)
    return spec.build(np.array(counts))


def test_hand_values():
    log_p = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert float(focal(2.0)(log_p, torch.tensor([1]))) == pytest.approx(
        0.75**2 * math.log(4), rel=1e-6
    )
    assert float(focal(2.0)(log_p, torch.tensor([0]))) == pytest.approx(
        0.5**2 * math.log(2), rel=1e-6
    )


def test_alpha_scales_the_loss_and_leaves_p_alone():
    """p_t is the unweighted probability: alpha inside the cross entropy would distort it
    (docs/definitions.md 1).
    """
    log_p = torch.tensor([[0.5, 0.25, 0.25]]).log()
    value = float(focal(2.0, (1.0, 3.0, 0.5))(log_p, torch.tensor([1])))
    assert value == pytest.approx(3 * 0.75**2 * math.log(4), rel=1e-6)


@given(
    st.lists(st.floats(-20, 20), min_size=3, max_size=3),
    st.integers(0, 2),
    st.floats(0, 5),
    st.tuples(*[st.floats(0.1, 10)] * 3),
)
def test_equals_the_formula(logits, y, gamma, alpha):
    exps = [math.exp(v - max(logits)) for v in logits]
    p = exps[y] / sum(exps)
    miss = sum(e for k, e in enumerate(exps) if k != y) / sum(exps)
    value = float(
        focal(gamma, alpha)(torch.tensor([logits], dtype=torch.float64), torch.tensor([y]))
    )
    assert value == pytest.approx(-alpha[y] * miss**gamma * math.log(p), rel=1e-5, abs=1e-12)


def test_gamma_zero_without_alpha_is_cross_entropy():
    logits, y = (
        torch.randn(100, 3, generator=torch.Generator().manual_seed(0)),
        torch.arange(100) % 3,
    )
    expected = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(focal(0.0)(logits, y), expected, rtol=0, atol=1e-6)


def test_balanced_weighs_every_class_alike_with_mean_one():
    alpha = focal(0.0, "balanced", (700, 200, 100)).alpha_C
    counts = torch.tensor([700.0, 200.0, 100.0])
    torch.testing.assert_close(alpha * counts, torch.full((3,), 1000 / 3))


def test_balanced_gives_an_absent_class_weight_one():
    assert focal(0.0, "balanced", (0, 60, 20)).alpha_C.tolist() == pytest.approx(
        [1, 80 / 120, 80 / 40]
    )


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 1 - 1e-9, 1.0])
def test_balanced_by_effective_numbers(beta):
    """Cui et al. (2019), eq. 4: weights go as 1 / (1 + beta + .. + beta^(n-1)); here their mean
    over the rows is 1.
    """
    counts = np.array([700, 200, 0])
    alpha = focal(0.0, "balanced", counts, beta=beta).alpha_C.numpy()
    effective = [sum(beta**i for i in range(n)) for n in counts[:2]]
    assert alpha[0] / alpha[1] == pytest.approx(effective[1] / effective[0], rel=1e-5)
    assert alpha @ counts == pytest.approx(900, rel=1e-5)
    assert alpha[2] == 1
    if beta == 0:
        assert alpha.tolist() == [1, 1, 1]


def test_smoothing_spreads_the_label_over_all_classes():
    log_p = torch.tensor([[0.5, 0.25, 0.25]]).log()
    costs = [-((1 - p) ** 2) * math.log(p) for p in (0.5, 0.25, 0.25)]
    expected = 0.7 * costs[1] + 0.3 * sum(costs) / 3
    assert float(focal(2.0, label_smoothing=0.3)(log_p, torch.tensor([1]))) == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_gradient_is_finite_where_p_rounds_to_one_or_zero(gamma):
    logits = torch.tensor([[200.0, 0.0, 0.0], [200.0, 0.0, 0.0]], requires_grad=True)
    focal(gamma)(logits, torch.tensor([0, 1])).sum().backward()
    assert torch.isfinite(logits.grad).all()


PLAIN = {"kind": "focal", "gamma": 2.0, "alpha": "none", "beta": 1.0, "label_smoothing": 0.0}


class Config(Spec):
    loss: Annotated[Kind, Room("hft.learning.loss")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"gamma": -0.1},
        {"alpha": "balance"},
        {"alpha": [1.0, 2.0]},
        {"alpha": [1.0, 0.0, 1.0]},
        {"alpha": 3},
        {"beta": 1.1},
        {"label_smoothing": 0.95},
    ],
)
def test_refuses_out_of_range(wrong):
    with pytest.raises(SpecError, match=rf"^loss\.{next(iter(wrong))}: must be [^\n]*$"):
        parse(Config, {"loss": PLAIN | wrong})


def test_a_beta_that_would_be_ignored_is_refused():
    with pytest.raises(
        SpecError, match=r"beta must be 1 unless alpha is balanced, got beta=0\.9 with alpha=none"
    ):
        parse(Config, {"loss": PLAIN | {"beta": 0.9}})
