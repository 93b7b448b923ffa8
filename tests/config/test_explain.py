"""What a user can mend is one message with an exit status; what only we can mend is raised."""

from __future__ import annotations

import pytest
import yaml

from hft.config.explain import explain
from hft.spec import UserError


@pytest.mark.parametrize("group", ["experiment", "debug"])
def test_an_overlay_that_does_not_exist_is_refused(shell, group):
    ended = shell("train.py", f"{group}=smok")
    assert ended.status == 2
    assert f"Could not find '{group}/smok'" in ended.err
    assert "Traceback" not in ended.err


def test_what_hydra_refuses_by_a_bare_error_is_a_message_too(shell):
    ended = shell("train.py", "features=null")
    assert ended.status == 2
    assert ended.err == "error: Config group override must be a string or a list. Got NoneType\n"


def read(composed, **given):
    raise AssertionError("only what Hydra refused is composed again")


def test_what_a_user_can_mend_is_printed(capsys):
    assert explain(UserError("bars: too few\ntry more"), "train", read) == 2
    assert capsys.readouterr().err == "error: bars: too few\n       try more\n"


def test_an_interrupt_has_its_own_status(capsys):
    assert explain(KeyboardInterrupt(), "train", read) == 130
    assert capsys.readouterr().err == "interrupted; hft runs shows how to go on\n"


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), SystemExit(1)])
def test_what_only_we_can_mend_is_raised(error):
    with pytest.raises(type(error)):
        explain(error, "train", read)


def test_a_file_that_is_no_yaml_is_named(capsys):
    def read(*_, **__):
        raise AssertionError

    with pytest.raises(yaml.YAMLError) as error:
        yaml.safe_load("a: [1")
    assert explain(error.value, "train", read) == 2
    assert "line 1" in capsys.readouterr().err
