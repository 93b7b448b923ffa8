"""launcher=local with real processes: warm workers, limits, deaths, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from hft.search.launcher import (
    LauncherError,
    MemoryExceeded,
    TrialTimeout,
    Where,
    WorkerDied,
    _slot,
)
from hft.search.launcher.local import Local, find_cards, n_cores, read_cards
from tests.search.launcher import toys
from tests.search.launcher.conformance import outcome, wait_for

ROOT = Path(__file__).parents[3]


def local(**given):
    return Local(
        **(
            {"kind": "local", "workers": 1, "per_gpu": 1, "timeout_min": 0.0, "memory_gb": 0.0}
            | given
        )
    )


@pytest.fixture
def where(tmp_path):
    return Where(folder=tmp_path, device="cpu", threads=1)


def gone(pid: int, timeout_s: float = 2.0) -> bool:
    """Whether a process ends in time; one that nobody has waited for yet has ended."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_workers_import_once_and_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("WARMED_IN", str(tmp_path))
    where = Where(folder=tmp_path, device="cpu", threads=1, warm=("tests.search.launcher.warmed",))
    start = time.monotonic()
    with local(workers=2).open(where) as engine:
        assert time.monotonic() - start < 0.25  # an import alone sleeps longer
        pids = set()
        for _ in range(3):
            futures = [
                engine.submit(toys.who, {"modules": ["tests.search.launcher.warmed"]})
                for _ in range(2)
            ]
            found = [outcome(engine, future) for future in futures]
            assert all(f["warm"] == ["tests.search.launcher.warmed"] for f in found)
            pids |= {f["pid"] for f in found}
        assert len(pids) == 2
        assert {int(path.name) for path in tmp_path.iterdir()} == pids


def test_a_module_that_cannot_be_imported_early_breaks_nothing(tmp_path, capfd):
    where = Where(
        folder=tmp_path, device="cpu", threads=1, warm=("tests.search.launcher.no_such_module",)
    )
    with local().open(where) as engine:
        assert outcome(engine, engine.submit(toys.add, {"a": 1, "b": 1}))["values"] == [2]
    assert "no_such_module" in capfd.readouterr().err


def test_what_is_submitted_right_after_a_death_is_not_lost(tmp_path, monkeypatch):
    """Pebble tells of the death first and gives up the pool afterwards, here a good while
    afterwards.
    """
    refuse = _slot._Context.Process

    def slowly(context, **given):
        if context._begin is None:
            time.sleep(1)
        return refuse(context, **given)

    monkeypatch.setattr(_slot._Context, "Process", slowly)
    with local().open(Where(folder=tmp_path, device="cpu", threads=1)) as engine:
        future = engine.submit(toys.nap, {"s": 60, "started": str(tmp_path / "started")})
        os.kill(int(wait_for(tmp_path / "started")), signal.SIGKILL)
        with pytest.raises(WorkerDied):
            outcome(engine, future)
        assert outcome(engine, engine.submit(toys.who, {"modules": []}))["pid"]


def test_a_killed_worker_is_replaced_by_a_warm_one(tmp_path, monkeypatch):
    monkeypatch.setenv("WARMED_IN", str(tmp_path / "warmed"))
    (tmp_path / "warmed").mkdir()
    where = Where(folder=tmp_path, device="cpu", threads=1, warm=("tests.search.launcher.warmed",))
    with local().open(where) as engine:
        future = engine.submit(toys.nap, {"s": 60, "started": str(tmp_path / "started")})
        os.kill(int(wait_for(tmp_path / "started")), signal.SIGKILL)
        with pytest.raises(
            WorkerDied, match=r"Killed, as the kernel does when memory runs out \(exit code -9\)"
        ):
            outcome(engine, future)
        found = outcome(
            engine, engine.submit(toys.who, {"modules": ["tests.search.launcher.warmed"]})
        )
        assert found["warm"]
        assert found["env"]["OMP_NUM_THREADS"] == "1"  # whichever of Pebble's threads started it
    assert len(list((tmp_path / "warmed").iterdir())) == 2


@pytest.mark.parametrize("code", [0, 3])
def test_a_worker_that_leaves_without_a_word_is_noticed(where, code):
    with local().open(where) as engine:
        with pytest.raises(WorkerDied, match=rf"without an outcome \(exit code {code}\)"):
            outcome(engine, engine.submit(toys.die, {"code": code}), 10)
        assert outcome(engine, engine.submit(toys.add, {"a": 1, "b": 1}))["values"] == [2]


def test_an_idle_worker_that_was_killed_is_replaced(where):
    with local().open(where) as engine:
        pid = outcome(engine, engine.submit(toys.who, {}))["pid"]
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
        time.sleep(0.3)  # Pebble looks ten times a second
        assert outcome(engine, engine.submit(toys.who, {}), 10)["pid"] != pid


def test_a_task_given_to_a_worker_that_has_just_died_ends(where):
    with local().open(where) as engine:
        for _ in range(3):
            pid = outcome(engine, engine.submit(toys.who, {}), 10)["pid"]
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(WorkerDied):
                assert outcome(engine, engine.submit(toys.who, {}), 10)["pid"] != pid


def test_threads_are_capped_in_the_workers_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SERVICE", "2-1-tcp-localhost-1")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with local().open(Where(folder=tmp_path, device="cpu", threads=2)) as engine:
        found = outcome(engine, engine.submit(toys.who, {}))
        assert {found["env"][name] for name in toys.THREADS} == {"2"}
        assert found["env"]["WANDB_SERVICE"] is None
        assert found["env"]["CUDA_VISIBLE_DEVICES"] == ""
        assert dict(os.environ) == before
        assert found["group"] == found["pid"]


@pytest.mark.parametrize(
    ("given", "threads", "slots"),
    [({"workers": 3}, 1, 3), ({"workers": 0}, 1, n_cores()), ({"workers": 0}, 10_000, 1)],
)
def test_slots_from_cores(tmp_path, given, threads, slots):
    with local(**given).open(Where(folder=tmp_path, device="cpu", threads=threads)) as engine:
        assert engine.slots == slots
        assert f"{slots} worker" in engine.describe()


TORCH = """
import os
from pathlib import Path
from types import SimpleNamespace
def note(share):
    seen = f"{os.environ['CUDA_VISIBLE_DEVICES']} {share}"
    Path(__file__).with_name(f"share-{os.getpid()}").write_text(seen)

cuda = SimpleNamespace(is_available=lambda: True, set_per_process_memory_fraction=note)
"""


def test_slots_share_cards(tmp_path, monkeypatch):
    """The card is chosen before torch is imported (here: a stand-in that notes what it sees)."""
    (tmp_path / "torch.py").write_text(TORCH)
    monkeypatch.syspath_prepend(tmp_path)
    where = Where(folder=tmp_path, device="cuda", threads=0)
    with local(workers=0, per_gpu=2).open(where, cards=["0", "GPU-b"]) as engine:
        assert engine.slots == 4
        futures = [engine.submit(toys.who, {}) for _ in range(4)]
        shown = [outcome(engine, future)["env"]["CUDA_VISIBLE_DEVICES"] for future in futures]
        assert shown == ["0", "GPU-b", "0", "GPU-b"]
        assert engine.describe() == "local: 4 workers on GPU 0, GPU-b, up to 2 on one"
    assert sorted(p.read_text() for p in tmp_path.glob("share-*")) == [
        "0 0.5",
        "0 0.5",
        "GPU-b 0.5",
        "GPU-b 0.5",
    ]


def test_a_whole_card_imports_no_torch(tmp_path):
    where = Where(folder=tmp_path, device="cuda", threads=0)
    with local(workers=1).open(where, cards=["0", "1"]) as engine:
        assert outcome(engine, engine.submit(toys.who, {"modules": ["torch"]}))["warm"] == []
        assert engine.describe() == "local: 1 worker on GPU 0"


def test_what_cannot_be_had_is_refused(tmp_path):
    cuda = Where(folder=tmp_path, device="cuda", threads=0)
    with pytest.raises(LauncherError, match=r"no GPU is found.*set trainer=cpu"):
        local().open(cuda, cards=[])
    with pytest.raises(
        LauncherError, match=r"launcher.workers: 5 trials .* set launcher.per_gpu=3"
    ):
        local(workers=5, per_gpu=2).open(cuda, cards=["0", "1"])
    with pytest.raises(LauncherError, match="no GPU to share, got 2"):
        local(per_gpu=2).open(Where(folder=tmp_path, device="cpu", threads=1))


LISTING = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaa)
  MIG 3g.40gb     Device  0: (UUID: MIG-one)
  MIG 3g.40gb     Device  1: (UUID: MIG-two)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbb)
"""


def test_cards_are_those_that_the_process_may_use(monkeypatch):
    assert read_cards(LISTING) == ["MIG-one", "MIG-two", "GPU-bbb"]
    for given, cards in (("", []), ("-1", []), ("1, 3", ["1", "3"]), ("GPU-b", ["GPU-b"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert find_cards() == cards
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", "")
    assert find_cards() == []


def test_a_task_that_takes_too_long_may_save_and_is_ended(where, tmp_path):
    with local(timeout_min=0.6 / 60).open(where) as engine:
        task = {"saved": str(tmp_path / "saved"), "takes_s": 0.1}
        with pytest.raises(
            TrialTimeout, match=r"ran 0\.0\d+ min, launcher.timeout_min allows 0\.01; raise it"
        ):
            outcome(engine, engine.submit(toys.save, task), 10)
        assert (tmp_path / "saved").exists()
        assert outcome(engine, engine.submit(toys.add, {"a": 1, "b": 1}))["values"] == [2]


@pytest.mark.parametrize("child", [False, True])
def test_a_task_that_holds_too_much_memory_is_killed(where, child):
    with local(memory_gb=0.25).open(where) as engine:
        with pytest.raises(
            MemoryExceeded, match=r"held 0\.\d+ GiB .* launcher.memory_gb allows 0\.25; raise it"
        ):
            outcome(engine, engine.submit(toys.grow, {"mib": 300, "child": child}), 20)
        assert outcome(engine, engine.submit(toys.add, {"a": 1, "b": 1}))["values"] == [2]


def test_a_task_that_does_not_end_is_killed_after_the_grace(where, tmp_path):
    with local().open(where, grace_s=0.5) as engine:
        future = engine.submit(toys.stay, {"started": str(tmp_path / "started")})
        pid = int(wait_for(tmp_path / "started"))
        start = time.monotonic()
        future.cancel()
        assert time.monotonic() - start < 0.1
        assert not future.done()
        with pytest.raises(CancelledError):
            outcome(engine, future)
        assert 0.4 < time.monotonic() - start < 2
        assert gone(pid)


def test_cancel_before_the_worker_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("WARMED_IN", str(tmp_path))
    where = Where(folder=tmp_path, device="cpu", threads=1, warm=("tests.search.launcher.warmed",))
    with local().open(where) as engine:
        future = engine.submit(toys.nap, {"s": 60})
        future.cancel()
        with pytest.raises(CancelledError):
            outcome(engine, future, 10)
        assert outcome(engine, engine.submit(toys.add, {"a": 1, "b": 1}))["values"] == [2]


@pytest.mark.parametrize("how", ["kill", "cancel", "close"])
def test_children_of_a_worker_end_with_it(where, tmp_path, how):
    with local().open(where, grace_s=0.5) as engine:
        future = engine.submit(toys.leave_child, {"started": str(tmp_path / "started")})
        pid, child = map(int, wait_for(tmp_path / "started").split())
        if how == "kill":
            os.kill(pid, signal.SIGKILL)
        elif how == "cancel":
            future.cancel()
        else:
            engine.close()
        assert gone(pid)
        assert gone(child)


def test_close_leaves_no_process(where):
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    start = time.monotonic()
    with local(workers=3).open(where) as engine:
        outcome(engine, engine.submit(toys.add, {"a": 1, "b": 1}))
        start = time.monotonic()
    assert time.monotonic() - start < 2
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert [p for p in left if "resource_tracker" not in " ".join(p.cmdline())] == []


DRIVER = """
import signal, sys, time
from pathlib import Path
from hft.search.launcher import Where
from hft.search.launcher.local import Local
from tests.search.launcher import toys

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    spec = Local(kind="local", workers=2, per_gpu=1, timeout_min=0, memory_gb=0)
    with spec.open(Where(folder=folder, device="cpu", threads=1)) as engine:
        tasks = [{"started": str(folder / f"started-{i}")} for i in range(2)]
        futures = [engine.submit(toys.leave_child, task) for task in tasks]
        try:
            engine.wait(futures, 60)
        except KeyboardInterrupt:
            time.sleep(0.5)
            (folder / "interrupted").write_text(str([future.done() for future in futures]))
"""


@pytest.fixture
def driver(tmp_path):
    """A driver with two workers at work, in a process group of its own as a shell gives it; and all
    its processes.
    """
    (tmp_path / "driver.py").write_text(DRIVER)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "driver.py", tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        process_group=0,
    )
    pids = [int(pid) for i in range(2) for pid in wait_for(tmp_path / f"started-{i}").split()]
    family = psutil.Process(process.pid).children(recursive=True)
    assert set(pids) <= {p.pid for p in family}
    yield process, [p.pid for p in family]
    process.kill()
    process.wait()


def test_a_killed_driver_leaves_nothing_behind(driver):
    process, pids = driver
    process.kill()
    process.wait()
    until = time.monotonic() + 2
    assert [pid for pid in pids if not gone(pid, until - time.monotonic())] == []


def test_ctrl_c_goes_to_the_driver_alone(driver, tmp_path):
    process, pids = driver
    os.killpg(process.pid, signal.SIGINT)
    assert wait_for(tmp_path / "interrupted") == "[False, False]"
    assert process.wait(10) == 0
    assert [pid for pid in pids if not gone(pid)] == []


def test_workers_outlive_the_thread_that_asked_for_them(where):
    """Linux ends them with the thread that started them."""
    with local().open(where) as engine, ThreadPoolExecutor(1) as passing:
        first = passing.submit(lambda: outcome(engine, engine.submit(toys.who, {}))).result()
        passing.shutdown()
        time.sleep(0.2)
        os.kill(first["pid"], 0)
        assert outcome(engine, engine.submit(toys.who, {}))["pid"] == first["pid"]


def test_importing_the_package_is_light():
    code = (
        "import sys, hft.search.launcher, hft.search.launcher.local, hft.search.launcher.inline\n"
        + (
            "heavy = {'pebble', 'psutil', 'torch', 'numpy', 'polars', 'submitit'}\n"
            "assert not heavy & set(sys.modules)"
        )
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
