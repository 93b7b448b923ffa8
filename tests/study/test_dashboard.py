"""Notes for optuna-dashboard: one per trial that ended, never over a user's own, with links to
files of the run.
"""

from __future__ import annotations

from wsgiref.util import setup_testing_defaults

import pytest
from optuna_dashboard import get_note, save_note

from hft.study.dashboard import make_app, write_notes
from hft.study.optuna_internals import open_trial
from tests.study.small_study import every_fate, write_run


@pytest.fixture
def study(tmp_path):
    return every_fate(tmp_path / "maker_v1")


def note(study, number):
    return get_note(open_trial(study.optuna, number))


def get(study, path):
    """(status, headers, body) of one request."""
    environ, seen = {}, []
    setup_testing_defaults(environ)
    answer = make_app(study)(environ | {"PATH_INFO": path}, lambda *given: seen.append(given))
    return seen[0][0].split()[0], dict(seen[0][1]), b"".join(answer)


def test_every_ended_trial_has_a_note(study):
    (write_run(study, 1) / "log.txt").write_text("printed")
    assert write_notes(study) == 9  # the study and eight of ten trials
    assert "**maker_v1**: asha by select/log\\_loss" in get_note(study.optuna)
    assert "[report](/report.html)" in get_note(study.optuna)
    best = note(study, 1)
    assert best.startswith("**maker_v1/0001**: complete\n\n- select/log\\_loss: 0.5\n")
    assert "[log.txt](/runs/1/log.txt) · [config.json](/runs/1/config.json)" in best
    assert "\npython backtest.py ckpt=maker_v1/0001\n" in best
    assert "its run is on another machine" in note(study, 4)
    assert (note(study, 7), note(study, 9)) == ("", "")  # running, waiting
    assert write_notes(study) == 0


def test_what_a_trial_raised_is_text(study):
    write_notes(study)
    assert "<script>" not in note(study, 5)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in note(study, 5)


def test_a_note_of_the_user_stays(study):
    save_note(open_trial(study.optuna, 1), "mine")
    save_note(study.optuna, "ours")
    write_notes(study)
    assert (note(study, 1), get_note(study.optuna)) == ("mine", "ours")


def test_the_links_lead_to_files_of_the_run_alone(study, tmp_path):
    (write_run(study, 1) / "log.txt").write_text("<b>printed</b>")
    (tmp_path / "secret.json").write_text("secret")
    (study.trial_folder(1) / "metrics.json").symlink_to(tmp_path / "secret.json")
    (study.folder / "report.html").write_text("<h1>report</h1>")
    status, headers, body = get(study, "/runs/1/log.txt")
    assert (status, body) == ("200", b"<b>printed</b>")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, body = get(study, "/report.html")
    assert (status, body) == ("200", b"<h1>report</h1>")
    assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    for path in (
        "/runs/1/metrics.json",
        "/runs/2/log.txt",
        "/runs/1/state.json",
        "/runs/1/../x.txt",
    ):
        status, _, body = get(study, path)
        assert status == "404", path
        assert b"secret" not in body


def test_everything_else_is_the_dashboard(study):
    status, _, body = get(study, "/api/studies")
    assert status == "200"
    assert b"maker_v1" in body
