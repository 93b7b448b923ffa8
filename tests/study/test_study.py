"""A study's identity: the same goes on, another is refused with the difference, and a stranger's
file is only data.
"""

from __future__ import annotations

import json
import os
import shutil

import optuna
import pytest

from hft.space import Dimension, Space
from hft.spec import PACKAGE
from hft.study.claims import claim, settle
from hft.study.outcome import Outcome, Status
from hft.study.storage import read_address
from hft.study.study import StudyError, conf_hash, freeze_conf, open_study
from hft.study.sweep import Bound
from hft.system.provenance import code_hash
from hft.system.version import VERSION
from tests.study.claimers import CHANNELS, GRID, LR, SPACE, make_study

BASE = {
    "model": {"kind": "tcn", "channels": 32},
    "seed": 7,
    "paths": {"runs": "runs"},
    "tags": ["a"],
    "data": {"kind": "binance", "path": "/here"},
    "bars": {"sizes": [1, 2]},
}
WIDER = Dimension("model.channels", low=4, high=128, integer=True)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maker_v1"


@pytest.fixture
def study(folder):
    return make_study(folder, base=BASE)


def conf(folder):
    return folder.parent / "conf"


def changed(**parts):
    return {**BASE, **parts}


def refusal(folder, **changes):
    with pytest.raises(StudyError) as error:
        make_study(folder, **{"base": BASE, **changes})
    return str(error.value)


# Begun and gone on with


def test_what_a_new_study_is(study, folder):
    assert sorted(p.name for p in folder.iterdir()) == [
        "conf",
        "journal.log",
        "lease",
        "study.json",
    ]
    about = json.loads((folder / "study.json").read_text())
    assert about == study.about
    assert set(about) == {
        "name", "version", "storage", "code", "conf", "base", "space", "sweep", "overrides"
    }  # fmt: skip
    assert about["version"] == VERSION
    assert (about["name"], about["storage"], about["code"]) == ("maker_v1", "journal", code_hash())
    assert about["conf"] == conf_hash(conf(folder)) == conf_hash(folder / "conf")
    assert study.trial_folder(7) == folder / "0007"
    assert study.trial_folder(12345) == folder / "12345"
    assert [d.name for d in study.optuna.directions] == ["MINIMIZE"]
    assert study.counts().points == 0
    assert study.best() == []


def test_what_is_opened_is_what_was_begun(study, folder):
    again = open_study(folder)
    assert (again.name, again.about, again.sweep, again.space) == (
        study.name,
        study.about,
        study.sweep,
        study.space,
    )
    assert again.address == study.address


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "n_trials": 99,
            "timeout": "8h",
            "max_retry": 5,
            "enqueue": ("defaults",),
            "study": "maker_v1",
        },
        {
            "base": changed(
                paths={"runs": "/else"},
                tags=["b"],
                show_config=True,
                data={"kind": "binance", "path": "/x"},
            )
        },
    ],
)
def test_the_same_study_goes_on(study, folder, changes):
    again = make_study(folder, **{"base": BASE, **changes})
    assert again.about == study.about
    assert again.sweep.n_trials == changes.get("n_trials", 20)
    assert again.trials() == study.trials()


def test_an_edited_conf_changes_nothing(study, folder):
    (conf(folder) / "train.yaml").write_text("seed: 8\n")
    assert (
        make_study(folder, base=BASE).about["conf"]
        == conf_hash(folder / "conf")
        != conf_hash(conf(folder))
    )


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"base": changed(model={"kind": "tcn", "channels": 64})}, ["model.channels: 32 -> 64"]),
        ({"base": changed(bars={"sizes": [1, 3]})}, ["bars.sizes: [1, 2] -> [1, 3]"]),
        (
            {"base": changed(model={"kind": "tcn", "channels": 32, "levels": 2})},
            ["model.levels: (none) -> 2"],
        ),
        ({"seed": 2}, ["sweep.seed: 1 -> 2"]),
        ({"kind": "tpe"}, ['sweep.kind: "random" -> "tpe"', "sweep.n_startup: (none) -> 4"]),
        (
            {"objectives": ("select/f1",)},
            ['sweep.objectives: ["select/log_loss"] -> ["select/f1"]'],
        ),
        (
            {"constraints": {"n": Bound(min=3.0, max=None)}},
            ["sweep.constraints.n.min: (none) -> 3.0"],
        ),
        ({"space": Space((LR, WIDER))}, ["space.model.channels.high: 64 -> 128"]),
        (
            {"space": Space((LR,))},
            ["space.model.channels.high: 64 -> (none)", "space.model.channels.low: 4 -> (none)"],
        ),
    ],
)
def test_another_study_is_refused_with_the_difference(study, folder, changes, lines):
    message = refusal(folder, **changes)
    assert (
        "study maker_v1 is another one; take back what differs, "
        "or begin another study: sweep.study=new" in message
    )
    assert set(lines) <= {line.strip() for line in message.splitlines()[1:]}
    assert (folder / "study.json").read_text() == json.dumps(study.about, indent=1) + "\n"


def test_a_long_difference_is_cut(study, folder):
    message = refusal(folder, base=changed(many={f"field{i}": i for i in range(50)}))
    assert len(message.splitlines()) == 22
    assert message.endswith("... and 30 more")


def test_other_code_is_refused(study, folder, monkeypatch):
    monkeypatch.setattr("hft.study.study.code_hash", lambda: "0" * 64)
    assert "its code, hft/, is " in refusal(folder)
    assert "the one here is 000000000000" in refusal(folder)
    assert open_study(folder).about == study.about  # to look at, any code will do


def test_another_version_is_refused_by_name(study, folder, monkeypatch):
    monkeypatch.setattr("hft.study.study.VERSION", "9.9.0")
    message = refusal(folder, base=changed(seed=8))
    assert message == (
        f"study maker_v1: hft {VERSION} began it, this is hft 9.9.0, and its trials must be "
        f"comparable; go on with it in hft {VERSION}, or begin another study: sweep.study=new"
    )
    assert open_study(folder).about == study.about  # to look at, any version will do


def test_a_study_without_a_version_is_of_the_first(study, folder):
    old = {name: value for name, value in study.about.items() if name != "version"}
    study.optuna.set_user_attr("hft", old)
    (folder / "study.json").write_text(json.dumps(old))
    assert "maker_v1: hft 0.1.0 began it" in refusal(folder)
    seen = open_study(folder)
    assert (seen.sweep, seen.space) == (study.sweep, study.space)


def test_an_edited_copy_of_conf_is_refused(study, folder):
    (folder / "conf" / "train.yaml").write_text("seed: 8\n")
    assert f"restore {folder / 'conf'}" in refusal(folder)


def test_a_begin_that_was_cut_short_is_made_up_for(study, folder):
    (folder / "study.json").unlink()
    shutil.rmtree(folder / "conf")
    (folder / ".conf-dead").mkdir()
    assert make_study(folder, base=BASE).about == study.about
    assert sorted(p.name for p in folder.iterdir()) == [
        "conf",
        "journal.log",
        "lease",
        "study.json",
    ]


def test_a_begin_cut_short_before_its_identity(folder):
    optuna.create_study(
        study_name="maker_v1",
        storage=read_address("journal", folder).open(),
        directions=["minimize"],
    )
    assert make_study(folder, base=BASE).optuna.user_attrs["hft"]["name"] == "maker_v1"


def test_a_stranger_s_study_of_that_name_is_refused(folder):
    url = f"sqlite:///{folder.parent / 'shared.db'}"
    strange = optuna.create_study(study_name="maker_v1", storage=read_address(url, folder).open())
    strange.tell(strange.ask(), 1.0)
    assert "is not one of ours; choose another name" in refusal(folder, storage=url)
    optuna.create_study(
        study_name="s2", storage=read_address(url, folder).open(), direction="maximize"
    )
    assert "has other objectives" in refusal(folder.parent / "s2", storage=url)


@pytest.mark.parametrize("name", ["", ".hidden", "a b", "x" * 65, "-a"])
def test_a_name_that_is_none(tmp_path, name):
    for use in (lambda f: open_study(f), lambda f: make_study(f)):
        with pytest.raises(StudyError, match="study name: must be letters"):
            use(tmp_path / "sweeps" / name if name else tmp_path / "sp ace")


# Where it is kept


def test_another_folder_joins_through_the_storage(folder, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = make_study(folder, base=BASE, storage=url)
    there = tmp_path / "there" / "maker_v1"
    shutil.copytree(conf(folder), there.parent / "conf")
    second = make_study(
        there, base=changed(data={"kind": "binance", "path": "/there"}), storage=url
    )
    assert second.about == first.about
    assert conf_hash(there / "conf") == first.about["conf"]
    with first.locks.hold("driver-a"):
        assert second.locks.is_held("driver-a")
        assert claim(first, driver="a", points=[], total=1).number == 0
        assert claim(second, driver="b", points=[], total=1) is None
    seen = open_study(tmp_path / "nowhere" / "maker_v1", storage=url)
    assert seen.about == first.about
    assert not seen.folder.exists()


def test_who_joins_with_another_conf_or_config_is_refused(folder, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    make_study(folder, base=BASE, storage=url)
    there = tmp_path / "there" / "maker_v1"
    (there.parent / "conf").mkdir(parents=True)
    (there.parent / "conf" / "train.yaml").write_text("seed: 8\n")
    message = refusal(there, storage=url)
    assert "its conf/ is " in message
    assert "come with the conf/ that it was begun with" in message
    assert "seed: 7 -> 8" in refusal(there, base=changed(seed=8), storage=url)
    assert not there.exists()


def test_a_study_is_missed_where_it_should_be(study, folder, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    gone = (
        f"study maker_v1 is not in storage {url}: "
        "it was begun in journal: go on there, sweep.storage=journal"
    )
    assert gone in refusal(folder, storage=url)
    with pytest.raises(StudyError) as error:
        open_study(folder, storage=url)
    assert gone in str(error.value)
    (folder / "journal.log").rename(tmp_path / "journal.log")
    for use in (lambda: open_study(folder), lambda: make_study(folder, base=BASE)):
        with pytest.raises(
            StudyError, match="not in storage journal: there is nothing of that name; restore it"
        ):
            use()
    assert not (folder / "journal.log").exists()


def test_a_renamed_folder_says_so(study, folder):
    folder.rename(folder.with_name("maker_v2"))
    with pytest.raises(
        StudyError, match="is of study maker_v1, so the folder must be named that, got maker_v2"
    ):
        open_study(folder.with_name("maker_v2"))


# A stranger's study.json


def tampered(study, edit):
    path = study.folder / "study.json"
    about = json.loads(path.read_text())
    edit(about)
    path.write_text(json.dumps(about))
    with pytest.raises(StudyError) as error:
        open_study(study.folder)
    return str(error.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: a.pop("space"), "space: must be given"),
        (lambda a: a.update(more=1), "more: About has no such field"),
        (lambda a: a.update(name="../x"), "name: "),
        (lambda a: a.update(code=7), "code: "),
        (lambda a: a.update(base=[]), "base: "),
        (lambda a: a["sweep"].update(kind="os.system"), "a config cannot name code"),
        (lambda a: a["sweep"].update(kind="nothing"), "no such kind 'nothing'"),
        (lambda a: a["sweep"].update(n_trials=-1), "sweep.n_trials: "),
        (lambda a: a["space"][0].update(path="a b"), "space.0.path: "),
        (lambda a: a["space"][0].update(prefix="~"), "space.0.prefix: "),
        (lambda a: a["space"][0].update(low="x"), "space.0.low"),
        (lambda a: a["space"][0].update(more=1), "space.0.more"),
        (
            lambda a: a.update(storage="postgresql://u:hunter2@h/d"),
            "a password must not stand in the address",
        ),
        (lambda a: a["base"]["model"].update(channels=64), "model.channels: 32 -> 64"),
        (lambda a: a.update(conf="0" * 64), "its conf/ is "),
        (lambda a: a.update(code="0" * 64), "its code, hft/, is "),
        (lambda a: a.update(version="<b>"), "version: "),
    ],
)
def test_a_stranger_s_study_is_data_only(study, edit, message):
    try:
        shown = tampered(study, edit)
    except ValueError as error:  # a StorageError
        shown = str(error)
    assert message in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    "storage", ["sqlite:///{}/other.db", "postgresql+psycopg://me@198.51.100.1/d"]
)
def test_an_address_elsewhere_is_not_followed_for_a_stranger(study, tmp_path, monkeypatch, storage):
    monkeypatch.setattr("hft.study.storage.Address.open", lambda self: pytest.fail("opened"))
    storage = storage.format(tmp_path)
    message = tampered(study, lambda a: a.update(storage=storage))
    assert f"names storage {storage}, which no sweep has used from here; if you trust it" in message


def test_an_address_elsewhere_is_followed_where_a_sweep_has_used_it(folder, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    study = make_study(folder, base=BASE, storage=url)
    assert open_study(folder).about == study.about
    (folder.parent / ".local" / "maker_v1.storage.json").write_text("[]")
    with pytest.raises(StudyError, match="which no sweep has used from here"):
        open_study(folder)
    assert open_study(folder, storage=url).about == study.about
    make_study(folder, base=BASE, storage=url)
    assert open_study(folder).about == study.about


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'"' + b"x" * 2**24 + b'"']
)
def test_an_unreadable_study_is_one_line(study, content):
    (study.folder / "study.json").write_bytes(content)
    with pytest.raises(StudyError, match=r"study\.json: "):
        open_study(study.folder)


def test_a_folder_without_a_study(tmp_path):
    with pytest.raises(StudyError, match=r"study\.json: missing, so there is no study in"):
        open_study(tmp_path / "nothing")


# Best and counts


def settled(study, values, constraints=()):
    with study.locks.hold("driver-a"):
        for i, value in enumerate(values):
            number = claim(study, driver="a", points=[], total=len(values)).number
            kept = {"trades": constraints[i]} if constraints else {}
            outcome = Outcome(status=Status.COMPLETE, values=tuple(value), constraints=kept)
            settle(study, number, outcome)


def test_the_best_keeps_its_constraints(folder):
    study = make_study(folder, objectives=("select/net_bps_day@x",))
    settled(study, [[5.0], [3.0], [4.0]], constraints=[1.0, -1.0, 0.0])
    assert [t.number for t in study.best()] == [2]


def test_the_front_of_several_objectives(folder):
    study = make_study(folder, objectives=("select/net_bps_day@x", "select/turnover_day"))
    settled(
        study, [[5.0, 2.0], [3.0, 3.0], [4.0, 1.0], [9.0, 9.0]], constraints=[-1.0, -1.0, 0.0, 2.0]
    )
    assert sorted(t.number for t in study.best()) == [0, 2]


def test_time_is_summed_over_drivers(study):
    assert study.spent_s() == 0
    for driver, seconds in (("a", 1.0), ("a", 3.5), ("b", 2.0)):
        study.note_spent(driver, seconds)
    assert open_study(study.folder).spent_s() == 5.5


# conf/ and code


def test_only_regular_yaml_is_frozen(tmp_path):
    source, secret = tmp_path / "conf", tmp_path / "secret"
    for path in (
        source / "train.yaml",
        source / "model" / "tcn.yaml",
        source / "schema" / "a.json",
        secret / "b.yaml",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    (source / "link.yaml").symlink_to(secret / "b.yaml")
    (source / "linked").symlink_to(secret)
    os.mkfifo(source / "pipe.yaml")
    (source / "folder.yaml").mkdir()
    copy = freeze_conf(source, tmp_path / "study" / "conf")
    assert sorted(str(p.relative_to(copy)) for p in copy.rglob("*") if p.is_file()) == [
        "model/tcn.yaml",
        "train.yaml",
    ]
    assert conf_hash(copy) == conf_hash(source)
    (source / "train.yaml").write_text("other")
    assert freeze_conf(source, copy) == copy
    assert (copy / "train.yaml").read_text() == "train.yaml"
    assert conf_hash(copy) != conf_hash(source)


@pytest.mark.parametrize("part", ["search/driver.py", "search/plan.py", "study/claims.py"])
def test_what_decides_the_trials_is_in_the_hash(tmp_path, monkeypatch, part):
    shutil.copytree(PACKAGE, tmp_path / "hft", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("hft.system.provenance.PACKAGE", tmp_path / "hft")
    before = code_hash()
    with (tmp_path / "hft" / part).open("a") as file:
        file.write("# edited\n")
    assert code_hash() != before


def test_the_hash_covers_names_and_bytes(tmp_path, monkeypatch):
    assert code_hash() == code_hash() != "0" * 64
    package = tmp_path / "hft"
    (package / "bars").mkdir(parents=True)
    monkeypatch.setattr("hft.system.provenance.PACKAGE", package)
    (package / "bars" / "tick.py").write_text("x = 1")
    first = code_hash()
    (package / "bars" / "notes.txt").write_text("no code")
    (package / "bars" / ".#tick.py").symlink_to("an editor's lock")
    (package / "bars" / "gone.py").symlink_to("replaced at this moment")
    assert code_hash() == first
    (package / "bars" / "tick.py").write_text("x = 1  ")
    second = code_hash()
    (package / "bars" / "tick.py").rename(package / "bars" / "tock.py")
    assert len({first, second, code_hash()}) == 3
    assert (PACKAGE / "system" / "provenance.py").is_file()


CONDITIONAL = Dimension(
    "a.b", low=0.0, high=1.0, step=0.25, prefix="+", when=(("model", ("a", None)),)
)


@pytest.mark.parametrize("space", [SPACE, GRID, Space((CHANNELS, CONDITIONAL))])
def test_a_space_is_kept_whole(folder, space):
    make_study(folder, space=space)
    assert open_study(folder).space == space
