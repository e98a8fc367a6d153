"""Parallel work: processes, Dask, workers that die, conversions killed at any moment."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_mip.commands import convert_autopet as command
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.parallel import for_each, threads_beside
from nnunetv2_mip.phantom.cohort import write_cohort

KILLS = 20
NAME = "Dataset501_AutoPETMIP"


def square(number: int) -> int:
    return number * number


def process(number: int) -> int:
    return os.getpid()


def first_is_last(number: int) -> int:
    time.sleep(0.5 if number == 0 else 0)
    return number


def numba_threads(number: int) -> int:
    import numba

    return numba.get_num_threads()


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "tree", 10, seed=3, spacing_mm=8.0)


@pytest.fixture(scope="module")
def scheduler():
    """The address of a Dask cluster of this machine: two workers with a thread each."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="ERROR"
    ) as cluster:
        yield cluster.scheduler_address


def convert(tree: Path, raw: Path, *options: object) -> list[str]:
    """The command line of a conversion into `raw`."""
    code = (
        "import os, sys; os.environ['nnUNet_raw'] = sys.argv.pop(1)\n"
        "from nnunetv2_mip.commands.convert_autopet import main\n"
        "main()\n"
    )
    options = ("-i", tree, "-d", 501, "--views", 12, "--labels", "visible", *options)
    return [sys.executable, "-c", code, str(raw), *map(str, options)]


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.slow
def test_every_item_is_answered_once(processes):
    assert sorted(for_each(square, range(7), processes)) == [(n, n * n) for n in range(7)]


def test_processes_are_others(tmp_path):
    assert {found for _, found in for_each(process, range(2), 1)} == {os.getpid()}
    assert os.getpid() not in {found for _, found in for_each(process, range(4), 2)}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.slow
def test_the_order_of_the_items_is_kept_where_it_is_wanted(processes):
    results = for_each(first_is_last, range(5), processes, in_order=True)
    assert list(results) == [(n, n) for n in range(5)]


@pytest.mark.slow
def test_the_first_error_in_order_is_raised():
    with pytest.raises(TypeError, match="'str'"):
        list(for_each(square, [1, "two", None], 2, in_order=True))


@pytest.mark.parametrize("items", [[], [3]])
def test_few_items_need_no_process(items):
    assert list(for_each(process, items, 4)) == [(item, os.getpid()) for item in items]


@pytest.mark.slow
def test_workers_share_the_cores():
    pytest.importorskip("numba")
    workers = max(2, os.cpu_count() or 1)
    assert {threads for _, threads in for_each(numba_threads, range(workers), workers)} == {1}


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.slow
def test_a_worker_that_dies_is_one_line(kept):
    message = "died, most likely of too little memory; run again with fewer workers"
    with pytest.raises(MipError, match=message) as caught:
        list(for_each(die, range(2), 2, finished_are_kept=kept))
    assert str(caught.value).endswith("(finished cases are kept)") == kept


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers end with their parent on Linux only")
def test_workers_end_with_a_killed_parent(tmp_path):
    code = (
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from nnunetv2_mip.parallel import for_each, threads_beside\n"
        "import test_parallel\n"
        f"list(for_each(test_parallel.wait_long, [{str(tmp_path)!r}] * 2, 2))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in code.splitlines())
    )
    parent = subprocess.Popen([sys.executable, script])
    for _ in range(600):
        workers = [int(path.name[4:]) for path in tmp_path.glob("pid_*")]
        if len(workers) == 2:
            break
        time.sleep(0.05)
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    for _ in range(100):
        alive = [pid for pid in workers if _is_running(pid)]
        if not alive:
            break
        time.sleep(0.05)
    assert alive == []


def wait_long(folder: str) -> None:
    (Path(folder) / f"pid_{os.getpid()}").touch()
    time.sleep(60)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_dask_gives_the_same_bytes(cohort, scheduler, tmp_path, monkeypatch, capsys):
    for raw, options in (("one", ()), ("dask", ("--dask", scheduler))):
        monkeypatch.setenv("nnUNet_raw", str(tmp_path / raw))
        with pytest.raises(SystemExit) as ended:
            command.main(["-i", str(cohort), "-d", "501", "--views", "5", *options])
        assert ended.value.code == 0
    assert content(tmp_path / "one" / NAME) == content(tmp_path / "dask" / NAME)


@pytest.mark.slow
def test_a_broken_study_does_not_stop_a_cluster(scheduler, tmp_path, monkeypatch, capsys):
    tree = write_cohort(tmp_path / "tree", 3, seed=4, spacing_mm=12.0)
    broken = sorted(tree.glob("*/*/SEG.nii.gz"))[1]
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4, 4), np.uint8)), str(broken))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    arguments = ["-i", str(tree), "-d", "501", "--views", "3", "--dask", scheduler]
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert str(broken) in line
    assert "2 finished cases wait" in line


@pytest.mark.slow
def test_no_scheduler_at_the_address(tmp_path, monkeypatch, capsys, cohort):
    pytest.importorskip("distributed")
    monkeypatch.setattr("nnunetv2_mip.parallel.CONNECT_SECONDS", 1)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    with pytest.raises(SystemExit) as ended:
        command.main(["-i", str(cohort), "-d", "501", "--dask", "tcp://127.0.0.1:9"])
    assert ended.value.code == 2
    assert "--dask tcp://127.0.0.1:9: no Dask scheduler answers there" in capsys.readouterr().err


def written(records: Path) -> int:
    """Number of finished studies; 0 where the folder is not there, or no longer."""
    try:
        return sum(path.suffix == ".json" for path in records.iterdir())
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_a_conversion_killed_at_random_moments_ends_with_the_same_bytes(cohort, tmp_path):
    """Half the kills hit the conversion with its workers, half the parent alone."""
    calm = tmp_path / "calm"
    subprocess.run(convert(cohort, calm, "-np", 2), check=True, capture_output=True)
    expected = content(calm / NAME)
    rng = random.Random(20)
    kills, rounds, interrupted = 0, 1, 0
    raw = tmp_path / "killed_1"
    while kills < KILLS or not (raw / NAME).is_dir():
        if (raw / NAME).is_dir():
            rounds += 1
            raw = tmp_path / f"killed_{rounds}"
        records = raw / f".{NAME}.partial" / "records"
        done = written(records)
        # How many more studies are to be finished, and how long into the next one.
        more, later = rng.randrange(4), rng.uniform(0, 0.2)
        run = subprocess.Popen(
            convert(cohort, raw, "-np", 2),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if kills < KILLS:
            while run.poll() is None and written(records) < done + more:
                time.sleep(0.01)
            time.sleep(later)
        try:
            assert run.wait(timeout=0 if kills < KILLS else 240) == 0
        except subprocess.TimeoutExpired:
            kills += 1
            if kills % 2:
                os.killpg(run.pid, signal.SIGKILL)
            else:
                run.kill()
            run.wait()
            interrupted += 0 < written(records) < 10
        if (raw / NAME).is_dir():
            assert content(raw / NAME) == expected
    # Not only before the first and after the last study.
    assert interrupted >= 3


@pytest.mark.parametrize(("threads", "elsewhere"), [(1, False), (2, True)])
def test_work_beside_takes_no_core_of_others(threads, elsewhere):
    numba = pytest.importorskip("numba")
    before = numba.get_num_threads()
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("one core")
    numba.set_num_threads(threads)
    try:
        with threads_beside(2) as beside:
            thread = beside.submit(threading.get_ident).result()
            failed = beside.submit(square, "two")
            with pytest.raises(TypeError):
                failed.result()
    finally:
        numba.set_num_threads(before)
    assert (thread != threading.get_ident()) == elsewhere
