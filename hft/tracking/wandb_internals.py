"""Every name of W&B's that it does not promise to keep, in one place.

The settings that begin with `x_`, the ids of panels and workspaces, their JSON, and the error of a
refused save. tests/tracking/test_wandb_internals.py has a test for each, which fails by its name
when a pin moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb
    from wandb_workspaces.reports.v2.interface import Panel
    from wandb_workspaces.workspaces import Workspace


def quiet_settings(*, init_timeout_s: float, flush_s: float) -> wandb.Settings:
    """No output, no statistics of the machine, no code; curves reach the disk after `flush_s`, W&B
    itself keeps 15 s of them in memory.
    """
    import wandb

    # The commit and the versions stand in the run's config already, as `code`
    # (hft/tracking/logger/wandb.py).
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        init_timeout=init_timeout_s,
        x_disable_stats=True,
        x_transaction_log_flush_interval=flush_s,
    )


def panel_json(panel: Panel) -> str:
    """A panel as the server takes it, its id included."""
    model: Any = panel
    return str(model._to_model().model_dump_json())


def set_panel_id(panel: Panel, identity: str) -> None:
    """Replaces the id that W&B draws at random."""
    # With random ids the snapshot in the tests would differ each time.
    panel._id = identity


def set_runset_id(workspace: Workspace, identity: str) -> None:
    """Replaces the id that W&B draws at random."""
    # As for panels: the same arguments must give the same JSON.
    workspace._internal_runset_id = identity


def workspace_json(workspace: Workspace) -> str:
    """A workspace as the server takes it."""
    return str(workspace._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1))


def refusals() -> tuple[type[Exception], ...]:
    """What the server's refusal of a query is raised as."""
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    # The second is raised where the server refuses a query, and is no wandb.errors.Error.
    return (wandb.errors.Error, WandbApiFailedError)
