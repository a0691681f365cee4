"""Runs on the workers of a dask scheduler: the same bytes as in one process."""

from __future__ import annotations

import _thread
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio

from ssdiff_trt import BackendError, InputError, Pansharpener, pansharpen
from ssdiff_trt.runtime.cluster import assignments, cluster
from ssdiff_trt.runtime.raster.spool import SpooledOutput
from tests.support.commands import call
from tests.support.progress import RecordingProgress
from tests.support.rasters import PairMaker, leftovers

pytest.importorskip("distributed")

from tests.support.cluster import BLOCKS, GIVEN, Once, stand_in, started

WORK = ".out.tif.unfinished"


def test_the_workers_write_the_bytes_of_one_process(on_workers, pair, expected):
    result, progress = on_workers(pair)
    assert result.output.read_bytes() == expected
    assert sorted(worker.name for worker in result.workers) == ["0", "1"]
    assert sum(worker.blocks for worker in result.workers) == BLOCKS
    assert all(worker.blocks >= 4 for worker in result.workers)
    assert progress.done == progress.total == sum(worker.tiles for worker in result.workers)
    assert progress.warnings == []
    assert [note for note in progress.notes if note.startswith("Worker 0: ")]


def test_uncertainty_shift_and_counts_are_those_of_one_process(on_workers, run, pair, tmp_path):
    given = {"shift": (0.5, -1.25), "uncertainty_seeds": 2, "pan_nodata": 700, "area": None}
    ours = run(pair, stand_in(), "a.tif", **GIVEN | given, uncertainty=tmp_path / "a_error.tif")
    theirs, _ = on_workers(pair, "b.tif", **given, uncertainty=tmp_path / "b_error.tif")
    assert theirs.output.read_bytes() == ours.output.read_bytes()
    with rasterio.open(ours.uncertainty) as one, rasterio.open(theirs.uncertainty) as other:
        assert one.read().tobytes() == other.read().tobytes()
    assert theirs.counts == ours.counts
    assert theirs.consistency == ours.consistency


def test_a_run_of_one_process_continues_on_workers_and_back(
    on_workers, run, pair, expected, tmp_path
):
    def stop():
        raise KeyboardInterrupt

    def done():
        return len((tmp_path / WORK / "journal.jsonl").read_text().splitlines()) - 1

    with pytest.raises(KeyboardInterrupt):
        run(pair, stand_in(), progress=Once(stop, 20), **GIVEN)
    first = done()
    with pytest.raises(KeyboardInterrupt):
        on_workers(pair, progress=Once(stop, 10))
    assert 0 < first < done() < BLOCKS
    result = run(pair, stand_in(), **GIVEN)
    assert result.finished_before
    assert result.output.read_bytes() == expected
    assert leftovers(tmp_path) == ["expected.tif", "out.tif"]


def test_a_worker_of_two_threads_opens_one_pair_after_another(on_workers, expected, pair, tmp_path):
    """Whichever thread opened the last one."""
    (folder := tmp_path / "other").mkdir()
    other = PairMaker(folder)(96, 96)
    with started(folder, n_workers=1, threads_per_worker=2) as client:
        for given in (other, pair) * 3:
            result, progress = on_workers(given, scheduler=client.scheduler.address, overwrite=True)
            assert progress.warnings == []
    assert result.output.read_bytes() == expected


def test_workers_wait_for_slow_writing(on_workers, pair, expected, monkeypatch):
    """Two answers are fetched at a time while one waits for the one that is being written."""
    fetched, written, most = [], [], []
    plain_notify, plain_begin = assignments.Assignments._notify, SpooledOutput.begin

    def notify(self, task, future, done):
        if task.fetched is done:
            fetched.append(task)
            most.append(len(fetched) - len(written))
        plain_notify(self, task, future, done)

    def begin(self, block):
        time.sleep(0.3)
        written.append(block)
        return plain_begin(self, block)

    monkeypatch.setattr(assignments.Assignments, "_notify", notify)
    monkeypatch.setattr(SpooledOutput, "begin", begin)
    result, _ = on_workers(pair)
    assert 2 <= max(most) <= 4
    assert len(written) == len(fetched) == BLOCKS
    assert result.output.read_bytes() == expected


def test_a_worker_that_differs_is_left_out(two, on_workers, pair, expected):
    two.set(1, "processor")
    result, progress = on_workers(pair)
    assert [worker.name for worker in result.workers] == ["0"] or (
        [worker.name for worker in result.workers] == ["1"]
    )
    (warning,) = progress.warnings
    assert "is left out, as it differs from the others in processor (avx9)" in warning
    assert "`mixed` would allow it" in warning
    assert result.output.read_bytes() == expected


def test_mixed_workers_are_used_and_the_tags_say_so(two, on_workers, pair):
    two.set(1, "processor")
    result, progress = on_workers(pair, mixed=True)
    assert len(result.workers) == 2
    assert progress.warnings == []
    assert [note for note in progress.notes if "differs from the others in processor" in note]
    with rasterio.open(result.output) as file:
        assert "workers may differ" in file.tags()["SSDIFF_BACKEND"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bundle": "other"}, "The bundle .* is not the same there"),
        ({"inputs": "other"}, r"PAN or MS \(ms.tif\) is not the same file there"),
    ],
)
def test_workers_with_another_bundle_or_inputs_are_left_out(
    on_workers, pair, monkeypatch, change, reason
):
    plain = cluster.job_of
    monkeypatch.setattr(
        cluster, "job_of", lambda *a, **given: replace(plain(*a, **given), **change)
    )
    with pytest.raises(BackendError, match=rf"No worker can be used \({reason}\); start workers"):
        on_workers(pair)


def test_inputs_that_change_end_the_run(on_workers, pair, tmp_path):
    with pytest.raises(InputError, match=r"PAN or MS \(ms.tif\) changed while it was read"):
        on_workers(pair, progress=Once(lambda: os.utime(pair[0], (1, 1))))
    assert leftovers(tmp_path) == []


def test_a_block_that_is_cancelled_ends_on_its_worker(two, on_workers, pair):
    """One block of 20 tiles, of half a second each."""
    for name in "01":
        two.set(name, "slow")
    timer = threading.Timer(3, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        on_workers(pair, block=2016, batch=1)
    stopped = time.monotonic()
    while any(two.client.run(lambda dask_worker: dask_worker.state.executing_count).values()):
        time.sleep(0.1)
    assert time.monotonic() - stopped < 3


def test_a_scheduler_file_names_the_scheduler(two, on_workers, pair, expected, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": two.address}))
    result, _ = on_workers(pair, scheduler=str(file))
    assert result.output.read_bytes() == expected


def test_a_scheduler_that_is_not_there_is_one_sentence(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 1)
    with pytest.raises(
        InputError, match=r"No scheduler of dask answers at tcp://127\.0\.0\.1:9"
    ) as e:
        pansharpen(*pair, tmp_path / "out.tif", scheduler="tcp://127.0.0.1:9")
    assert e.value.parameter == "scheduler"


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (None, "nonsense", "'nonsense' is no address such as tcp://10.0.0.1:8786, and no"),
        (None, "tls://127.0.0.1:9", "tls://127.0.0.1:9 needs TLS, which dask is not configured"),
        ("{", "a.json", "The scheduler file a.json cannot be read"),
        ("[]", "a.json", "The scheduler file a.json cannot be read"),
        ('{"address": 1}', "a.json", "'1' is no address"),
        (None, "no.json", "The scheduler file no.json does not exist; check the path, or give an"),
    ],
)
def test_a_scheduler_that_cannot_be_named_so_is_refused_at_once(
    pair, tmp_path, monkeypatch, content, name, reason
):
    monkeypatch.chdir(tmp_path)
    if content:
        Path("a.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(reason)):
        pansharpen(*pair, "out.tif", scheduler=name)


def test_what_other_processes_cannot_have_is_refused(pair, tmp_path):
    with pytest.raises(InputError, match="opened backend cannot be used by other processes"):
        Pansharpener(backend=stand_in(), workers=2)
    with Pansharpener(workers=2) as sharpener:
        images = []
        for path in pair:
            with rasterio.open(path) as file:
                images.append(file.read())
        with pytest.raises(InputError, match="Arrays cannot be opened by other processes"):
            sharpener(images[0][0], images[1], full_scale=2047)
        with (
            rasterio.MemoryFile(pair[0].read_bytes()) as memory,
            memory.open() as pan,
            pytest.raises(InputError, match="cannot be opened by other processes"),
        ):
            sharpener(pan, pair[1], tmp_path / "out.tif")


def test_too_little_memory_for_so_many_workers_is_refused(pair, tmp_path, monkeypatch):
    monkeypatch.setattr("ssdiff_trt.runtime.memory.usable_memory", lambda: 100e6)
    with pytest.raises(InputError, match="A run of 50 workers takes"):
        pansharpen(*pair, tmp_path / "out.tif", workers=50)


def test_the_command_starts_workers_and_gives_the_bytes_of_one_process(make_pair, tmp_path):
    """With the real network."""
    pair = make_pair(96, 96)
    words = ["run", *pair, "--steps", 1, "--shift", "none", "--block", 48]
    one = call(*words, "-o", tmp_path / "one.tif")
    two = call(*words, "-o", tmp_path / "two.tif", "--workers", 2, "-v")
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()
    assert "Worker 0: " in two.stderr
    assert "Traceback" not in two.stderr


def test_own_workers_listen_on_this_machine_alone(pair, tmp_path):
    with (
        Pansharpener(workers=1) as sharpener,
        sharpener.plan(*pair, tmp_path / "out.tif") as plan,
    ):
        assert "on the CPU" in sharpener.describe(plan)
        client = sharpener._cluster._client
        addresses = client.scheduler.address, *client.nthreads(), *client.run(_nanny).values()
    assert len(addresses) == 3
    assert all(re.fullmatch(r"tcp://127\.0\.0\.1:\d+", address) for address in addresses)


def _nanny(dask_worker):
    return dask_worker.nanny


def test_a_missing_dask_is_one_sentence(make_pair, tmp_path):
    code = (
        "import sys; sys.modules['distributed'] = None\nfrom ssdiff_trt.cli.trt import main; main()"
    )
    words = [sys.executable, "-c", code, "run", *make_pair(64, 64), "--workers", 2]
    done = subprocess.run(
        list(map(str, words)), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "distributed is not installed; pip install 'ssdiff-trt[dask]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as on Linux")
@pytest.mark.parametrize(
    ("number", "send"),
    [(signal.SIGINT, os.kill), (signal.SIGINT, os.killpg), (signal.SIGKILL, os.kill)],
    ids=["SIGINT", "SIGINT of a terminal", "SIGKILL"],
)
def test_a_command_that_is_stopped_stops_its_workers(make_pair, tmp_path, number, send):
    pair = make_pair(160, 192)
    code = "from ssdiff_trt.cli.trt import main; main()"
    words = ["run", *pair, "-o", tmp_path / "out.tif", "--block", 24, "--workers", 2]
    words += ["--shift", "none", "--progress", "json"]
    command = [sys.executable, "-c", code, *map(str, words)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr
        next(line for line in process.stderr if json.loads(line)["done"] > 30)
        children = _descendants(process.pid)
        send(process.pid, number)
        rest = process.stderr.read()
    assert process.returncode == (130 if number == signal.SIGINT else -9)
    assert len(children) >= 2
    for _ in range(100):
        if not any(Path(f"/proc/{child}").exists() for child in children):
            break
        time.sleep(0.1)
    else:
        pytest.fail("workers are left")
    assert (tmp_path / WORK / "journal.jsonl").read_text().count("\n") >= 2
    if number == signal.SIGINT:
        assert "the same command continues from there" in rest
        assert "Traceback" not in rest


def _descendants(process):
    """Processes that a process has started, and those that they have."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(child)]
    return found


def test_many_more_processes_than_cpus_are_refused(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "usable_cpus", lambda: 2)
    with pytest.raises(InputError, match=r"9 processes were asked for, .* 2 CPUs; give 8 at most"):
        pansharpen(*pair, tmp_path / "o.tif", workers=9)
    assert not (tmp_path / "o.tif").exists()


def test_fewer_blocks_than_workers_is_a_warning(make_pair, tmp_path):
    progress = RecordingProgress()
    with Pansharpener(workers=2, progress=progress) as sharpener:
        for name in ("a.tif", "b.tif"):
            with sharpener.plan(*make_pair(64, 64), tmp_path / name) as plan:
                sharpener.describe(plan)
                sharpener.describe(plan)
    warning = "The result is 1 block, so 1 of 2 workers computes; a smaller `block` makes more"
    assert progress.warnings == [warning] * 2


def test_what_does_not_suit_the_workers_is_a_warning(make_pair, tmp_path):
    progress = RecordingProgress()
    with (
        Pansharpener(workers=1, device=3, backend="onnxruntime", progress=progress) as sharpener,
        sharpener.plan(*make_pair(64, 64), tmp_path / "a.tif") as plan,
    ):
        sharpener.describe(plan)
    (warning,) = progress.warnings
    assert warning.startswith("`device=3` has no effect, as the network runs on the CPU")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as on Linux")
def test_a_script_without_the_guard_is_one_sentence(make_pair, tmp_path):
    script = tmp_path / "script.py"
    pair = [str(path) for path in make_pair(64, 64)]
    script.write_text(
        f"from ssdiff_trt import pansharpen\npansharpen(*{pair}, 'out.tif', workers=2)\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "Nanny" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(
        "InputError: The processes of `workers` did not start; a script needs "
        '`if __name__ == "__main__":` around the call.'
    )
