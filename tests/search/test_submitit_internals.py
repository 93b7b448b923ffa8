"""What hft/search/submitit_internals.py takes of submitit is as it was: one test per private
name.
"""

from __future__ import annotations

import pytest
from submitit import SlurmExecutor

from hft.search.submitit_internals import make_executor, submission_text


@pytest.fixture
def executor(tmp_path, monkeypatch):
    monkeypatch.setattr(SlurmExecutor, "affinity", classmethod(lambda cls: 1))  # no srun here
    return make_executor(tmp_path, python="python3", parameters={"time": 7, "cpus_per_task": 2})


def test_throttling(tmp_path, monkeypatch, executor):
    """submitit sleeps so long between two submissions, in seconds."""
    assert vars(SlurmExecutor(tmp_path))["_throttling"] == 0.2
    assert vars(executor)["_throttling"] == 0.0


def test_make_submission_file_text(executor):
    lines = submission_text(executor, "true").splitlines()
    assert lines[0] == "#!/bin/bash"
    assert {"#SBATCH --time=7", "#SBATCH --cpus-per-task=2"} <= set(lines)
    assert "true" in lines[-1]
