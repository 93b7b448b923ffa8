"""Schedules against torch's own and closed forms."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pytest
import torch

from hft.spec import Kind, Room, Spec, SpecError, parse
from tests.learning.planted import TCN, adamw


@pytest.mark.parametrize("n_steps", [12, 97, 1000])
@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.85])
def test_one_cycle_is_torchs(warmup, n_steps):
    optim = adamw(lr=0.02, schedule="one_cycle", warmup=warmup)
    twin = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        twin, max_lr=0.02, total_steps=n_steps, pct_start=warmup, cycle_momentum=False
    )
    expected = []
    for step in range(n_steps):
        expected.append(schedule.get_last_lr()[0])
        twin.step()
        if step < n_steps - 1:
            schedule.step()
    np.testing.assert_allclose(
        [optim.lr_at(step, n_steps) for step in range(n_steps)], expected, rtol=1e-9
    )


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warm_up_rises_in_equal_steps_and_the_rest_is_held_or_a_half_cosine(schedule):
    optim = adamw(lr=0.1, schedule=schedule, warmup=0.2)
    rates = [optim.lr_at(step, 50) for step in range(50)]
    np.testing.assert_allclose(rates[:10], 0.1 * np.arange(1, 11) / 10)
    rest = (
        np.full(40, 0.1)
        if schedule == "constant"
        else 0.05 * (1 + np.cos(np.pi * np.arange(40) / 40))
    )
    np.testing.assert_allclose(rates[10:], rest)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
@pytest.mark.parametrize("n_steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.99])
def test_every_rate_of_the_shortest_trainings_is_usable(schedule, n_steps, warmup):
    optim = adamw(lr=0.1, schedule=schedule, warmup=warmup)
    assert all(0 < optim.lr_at(step, n_steps) <= 0.1 for step in range(n_steps))


def test_weight_decay_spares_biases_and_betas_arrive():
    network = TCN.build(4)
    optimizer = adamw(weight_decay=0.5, betas=[0.8, 0.95]).build(network)
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0.0)
    assert decayed["betas"] == spared["betas"] == (0.8, 0.95)
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    assert {id(p) for p in spared["params"]} == {id(p) for p in biases}


class Config(Spec):
    optim: Annotated[Kind, Room("hft.learning.optim")]


def test_a_beta_outside_its_range_is_named():
    with pytest.raises(SpecError, match=r"optim\.betas\.1: .*less than 1"):
        parse(Config, {"optim": adamw().plain() | {"betas": [0.9, 1.0]}})
