"""An outcome survives JSON, and what is none is a failure that says so."""

from __future__ import annotations

import json
import math

import pytest

from hft.study.outcome import Outcome, Status, read_outcome


def test_an_outcome_survives_json():
    outcome = Outcome(
        status=Status.COMPLETE,
        values=(1.5, -2.0),
        constraints={"select/trades": math.inf},
        metrics={"select/mcc": None, "select/log_loss": 0.5},
        log="log.txt",
    )
    sent = json.loads(json.dumps(outcome.plain()))
    assert sent["status"] == "complete"
    assert read_outcome(sent) == outcome


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ("complete", "the outcome is no mapping, got 'complete'"),
        ({}, "the outcome cannot be read: status: must be given"),
        ({"status": "well"}, "the outcome cannot be read: status: must be 'complete', "),
        ({"status": "complete", "values": "1"}, "the outcome cannot be read: values: must be "),
        ({"status": "pruned", "more": 1}, "the outcome cannot be read: more: "),
    ],
)
def test_what_is_no_outcome_is_a_failure(stored, reason):
    outcome = read_outcome(stored)
    assert outcome.status is Status.FAILED
    assert outcome.reason.startswith(reason)
