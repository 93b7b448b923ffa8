"""Which metrics can be compared across a sweep."""

from __future__ import annotations

import pytest

from hft.config.objectives import MONEY_ONLY, refuse_incomparable
from hft.spec import SpecError


@pytest.mark.parametrize("varying", MONEY_ONLY)
def test_class_metrics_are_no_objective_across_what_changes_the_classes(varying):
    jobs = [{name: {"size": 1} for name in (*MONEY_ONLY, "model")} for _ in range(2)]
    jobs[1][varying] = {"size": 2}
    with pytest.raises(
        SpecError, match=rf"select/log_loss: not comparable across different {varying} "
    ):
        refuse_incomparable("select/log_loss", jobs)
    refuse_incomparable("select/net_bps_day@retail_taker", jobs)


def test_class_metrics_compare_models():
    jobs = [{"bars": 1, "model": {"channels": n}} for n in (8, 16)]
    refuse_incomparable("select/log_loss", jobs)
