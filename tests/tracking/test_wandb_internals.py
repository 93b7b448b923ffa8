"""What W&B does not promise to keep, each name by itself: a test that fails says which one went."""

from __future__ import annotations

import json

import pytest

from hft.tracking import wandb_internals
from hft.tracking.workspace import _library


@pytest.fixture
def workspace():
    ws, wr = _library()
    section = ws.Section(name="s", panels=[wr.BarPlot(title="t", metrics=["m"])])
    return ws.Workspace(entity="e", project="p", name="n", sections=[section])


def test_settings_x_disable_stats():
    assert wandb_internals.quiet_settings(init_timeout_s=1, flush_s=2).x_disable_stats


def test_settings_x_transaction_log_flush_interval():
    settings = wandb_internals.quiet_settings(init_timeout_s=1, flush_s=2)
    assert settings.x_transaction_log_flush_interval == 2
    assert (settings.init_timeout, settings.silent, settings.console) == (1, True, "off")


def test_panel_id(workspace):
    (panel,) = workspace.sections[0].panels
    wandb_internals.set_panel_id(panel, "mine")
    assert json.loads(wandb_internals.panel_json(panel))["id"] == "mine"


def test_panel_to_model(workspace):
    (panel,) = workspace.sections[0].panels
    assert json.loads(wandb_internals.panel_json(panel))["config"]["chart_title"] == "t"


def test_workspace_internal_runset_id(workspace):
    wandb_internals.set_runset_id(workspace, "runs")
    section = json.loads(wandb_internals.workspace_json(workspace))["spec"]["section"]
    assert [runs["id"] for runs in section["runSets"]] == ["runs"]


def test_workspace_to_model(workspace):
    view = json.loads(wandb_internals.workspace_json(workspace))
    assert (view["entity"], view["project"], view["displayName"]) == ("e", "p", "n")


def test_wandb_api_failed_error():
    names = [error.__name__ for error in wandb_internals.refusals()]
    assert names == ["Error", "WandbApiFailedError"]
    assert all(issubclass(error, Exception) for error in wandb_internals.refusals())
