"""Runs that are killed, and continued by the same command with the same pixels."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio

from ssdiff_trt import Pansharpener
from ssdiff_trt.runtime import journal
from ssdiff_trt.runtime.errors import InputError, OutputError, SSDiffError
from ssdiff_trt.runtime.raster.spool import SpooledOutput
from ssdiff_trt.runtime.scratch import work_folder
from tests.support.backends import StandIn
from tests.support.processes import needs_fork, start
from tests.support.progress import RecordingProgress
from tests.support.rasters import leftovers, read_raster, smooth, write_raster

WORK = ".out.tif.unfinished"
GIVEN = {"block": 48, "batch": 1, "shift": "none"}


class Stopping(StandIn):
    """A backend that stops after some tiles, and may do something before."""

    def __init__(self, tiles, before=lambda: None, **shares):
        super().__init__(pan=0.2, noise=0.01, **shares)
        self.tiles, self.before = tiles, before

    def images(self, *tiles):
        if len(self.batches) == self.tiles:
            self.before()
            raise KeyboardInterrupt
        return super().images(*tiles)


def whole(run, pair, **options):
    """The output of a run that nothing interrupts."""
    return run(pair, StandIn(pan=0.2, noise=0.01), name="whole.tif", **GIVEN | options).output


def stopped(run, pair, tiles=20, before=lambda: None, **options):
    """Start a run and stop it."""
    with pytest.raises(KeyboardInterrupt):
        run(pair, Stopping(tiles, before), **GIVEN | options)


def continued(run, pair, **options):
    """Run again; gives the backend and what was shown."""
    backend, progress = StandIn(pan=0.2, noise=0.01), RecordingProgress()
    run(pair, backend, progress=progress, **GIVEN | options)
    return backend, progress


@pytest.mark.parametrize("marked", ["nothing", "nodata", "mask"])
def test_a_stopped_run_is_continued_with_the_same_result(make_pair, run, tmp_path, marked):
    pixels = smooth((4, 40, 48), seed=2)
    valid = np.ones((40, 48), bool)
    valid[8:20, 10:30] = False
    given = {"nothing": {}, "nodata": {"nodata": 0}, "mask": {"mask": valid}}[marked]
    pair = make_pair(ms={"pixels": pixels * valid if marked == "nodata" else pixels, **given})
    expected = whole(run, pair)
    reference = run(pair, StandIn(pan=0.2, noise=0.01), name="again.tif", **GIVEN)
    stopped(run, pair)
    assert WORK in leftovers(tmp_path)
    done = len((tmp_path / WORK / "journal.jsonl").read_text().splitlines()) - 1
    assert 2 <= done <= 12
    result = run(pair, StandIn(pan=0.2, noise=0.01), **GIVEN)
    assert result.output.read_bytes() == expected.read_bytes()
    assert result.counts == reference.counts
    assert result.consistency.values == reference.consistency.values
    assert result.consistency.rmse == pytest.approx(reference.consistency.rmse)
    assert WORK not in leftovers(tmp_path)


def test_what_is_finished_is_not_done_again(make_pair, run, standin4):
    pair = make_pair()
    every = sum(continued(run, pair, name="whole.tif")[0].batches)
    stopped(run, pair, tiles=30)
    with (
        Pansharpener(standin4, backend=StandIn()) as sharpener,
        sharpener.plan(*pair, pair[0].parent / "out.tif", block=48, shift="none") as plan,
    ):
        estimate = sharpener.estimate(plan)
    assert (estimate.blocks, estimate.tiles) == (16, every)
    assert 4 <= estimate.finished_blocks <= 10
    share = 1 - estimate.finished_blocks / 16
    assert estimate.seconds == pytest.approx(estimate.seconds_per_tile * every * share)
    backend, progress = continued(run, pair)
    assert 20 <= every - sum(backend.batches) <= 30
    assert progress.total == progress.done == sum(backend.batches)
    assert progress.notes[0].startswith(
        "An unfinished run of out.tif is continued; finished so far:"
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 7}, "seed (0, now 7)"),
        ({"steps": 1}, "steps (2, now 1)"),
        ({"block": 96}, "block (48, now 96)"),
        ({"dtype": "float32"}, "data type (uint16, now float32)"),
        ({"pan_nodata": 5}, "pan_nodata (none, now 5)"),
        ({"full_scale": 4095}, "full_scale (2047, now 4095)"),
        ({"area": (500_000, 5_699_950, 500_050, 5_699_990)}, "area "),
    ],
)
def test_a_run_with_other_options_says_what_changed_and_begins_anew(make_pair, run, change, named):
    pair = make_pair()
    expected = read_raster(whole(run, pair, **change))
    stopped(run, pair)
    progress = continued(run, pair, **change)[1]
    (note,) = [note for note in progress.notes if "cannot be continued" in note]
    assert named in note
    assert note.endswith("changed; this one starts from the beginning")
    np.testing.assert_array_equal(read_raster(pair[0].parent / "out.tif"), expected)


def test_a_changed_input_is_said_and_its_blocks_are_not_used(make_pair, run, tmp_path):
    pair = make_pair()
    stopped(run, pair)
    write_raster(pair[1], smooth((4, 40, 48), seed=9), *geo(pair[1]))
    expected = read_raster(whole(run, pair))
    notes = continued(run, pair)[1].notes
    assert any("cannot be continued, as inputs changed" in note for note in notes)
    np.testing.assert_array_equal(read_raster(tmp_path / "out.tif"), expected)


def geo(path):
    with rasterio.open(path) as file:
        return file.transform, file.crs


def test_blocks_read_before_an_input_changed_are_not_used_when_it_changes_back(
    make_pair, run, tmp_path
):
    """A block that saw both states would be neither's."""
    pair = make_pair(400, 400)
    kept, before = tmp_path / "kept.tif", os.stat(pair[0])
    shutil.copy2(pair[0], kept)

    class Changing(StandIn):
        def images(self, *tiles):
            if len(self.batches) == 20:
                write_raster(pair[0], smooth((1, 400, 400), seed=8), *geo(kept))
            return super().images(*tiles)

    with pytest.raises(InputError, match="changed while it was read"):
        run(pair, Changing(pan=0.2, noise=0.01), **GIVEN)
    assert WORK not in leftovers(tmp_path)
    shutil.copy2(kept, pair[0])
    assert os.stat(pair[0]).st_mtime_ns == before.st_mtime_ns


def test_an_input_that_is_gone_for_a_while_costs_nothing(make_pair, run, tmp_path):
    pair = make_pair(400, 400)
    every = run(pair, StandIn(pan=0.2, noise=0.01), name="whole.tif", **GIVEN).counts.tiles
    expected = (tmp_path / "whole.tif").read_bytes()
    aside = tmp_path / "aside.tif"

    class Unplugging(StandIn):
        def images(self, *tiles):
            if len(self.batches) == 20:
                pair[0].rename(aside)
            return super().images(*tiles)

    with pytest.raises(InputError, match="was removed while it was read; put it back and run"):
        run(pair, Unplugging(pan=0.2, noise=0.01), **GIVEN)
    with pytest.raises(InputError, match=r"pan.tif"):
        continued(run, pair)
    assert WORK in leftovers(tmp_path)
    aside.rename(pair[0])
    backend, _ = continued(run, pair)
    assert (tmp_path / "out.tif").read_bytes() == expected
    assert sum(backend.batches) < every - 10


@pytest.mark.parametrize("damage", ["torn", "cut", "changed", "gone", "garbage"])
def test_what_a_power_failure_damaged_is_done_again(make_pair, run, tmp_path, damage):
    pair = make_pair()
    expected = whole(run, pair).read_bytes()
    stopped(run, pair)
    folder = tmp_path / WORK
    lines, file = folder / "journal.jsonl", next(folder.glob("0-*.tif"))
    if damage == "torn":
        lines.write_bytes(lines.read_bytes()[:-20])
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "changed":
        content = bytearray(file.read_bytes())
        content[-50] ^= 255
        file.write_bytes(content)
    elif damage == "gone":
        file.unlink()
    else:
        lines.write_bytes(b"\xff[1, 2]\n{}\n" + lines.read_bytes())
    continued(run, pair)
    assert (tmp_path / "out.tif").read_bytes() == expected
    assert WORK not in leftovers(tmp_path)


def test_without_resume_nothing_is_kept_or_used(make_pair, run, tmp_path):
    pair = make_pair()
    expected = whole(run, pair).read_bytes()
    stopped(run, pair, resume=False)
    assert WORK not in leftovers(tmp_path)
    stopped(run, pair)
    backend, _ = continued(run, pair, resume=False)
    assert sum(backend.batches) == 49  # of 4 x 4 blocks, with their borders
    assert (tmp_path / "out.tif").read_bytes() == expected


def test_without_resume_blocks_are_removed_once_they_are_copied(make_pair, run, tmp_path):
    most = 0

    class Looking(StandIn):
        def images(self, *tiles):
            nonlocal most
            most = max(most, len(list((tmp_path / WORK).glob("*_*.tif"))))
            return super().images(*tiles)

    pair = make_pair(800, 100)
    found = []
    for resume in (True, False):
        most = 0
        run(pair, Looking(), resume=resume, overwrite=True, **GIVEN)
        found.append(most)
    assert found[0] > 40  # of 51
    assert found[1] <= 21  # 7 rows of blocks begin above row 300 of the file's blocks of 256


def test_inputs_that_cannot_be_recognised_later_are_said_not_to_be_resumable(make_pair, run):
    pair = make_pair()
    with rasterio.MemoryFile(pair[1].read_bytes()) as memory, memory.open() as ms:
        progress = RecordingProgress()
        run((pair[0], ms), progress=progress, **GIVEN)
    assert progress.notes == [
        "The inputs cannot be recognised later, so this run cannot be continued"
    ]


def test_a_line_is_written_when_its_file_is_on_the_disk(tmp_path, monkeypatch):
    """Else a power failure could leave a line whose file is empty."""
    order = []
    to_disk = journal._to_disk

    def record(path):
        lines = (tmp_path / "journal.jsonl").read_text().count("\n")
        order.append((path.name, lines))
        to_disk(path)

    begun = journal.Journal(tmp_path, {"seed": "0"})
    monkeypatch.setattr(journal, "_to_disk", record)
    (tmp_path / "a.tif").write_text("pixels")
    begun.add("a.tif", {"tiles": 3})
    assert order == [("a.tif", 1), (tmp_path.name, 1), ("journal.jsonl", 2)]
    line = json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[1])
    assert line["sha256"] == hashlib.sha256(b"pixels").hexdigest()
    again = journal.Journal(tmp_path, {"seed": "0"})
    assert again.parts["a.tif"].counts == {"tiles": 3}


def test_two_runs_to_one_output_do_not_meet(make_pair, run, tmp_path):
    with (
        work_folder(tmp_path / "out.tif", lambda: False, "output"),
        pytest.raises(OutputError, match=r"Another process is writing .*out.tif; wait for it, or"),
    ):
        run(make_pair(), **GIVEN)
    run(make_pair(), **GIVEN)


def test_a_folder_that_is_removed_meanwhile_is_one_sentence(make_pair, run, tmp_path):
    folder = tmp_path / "results"

    class Removing(StandIn):
        def images(self, *tiles):
            if len(self.batches) == 20:
                while folder.exists():  # something is written meanwhile
                    shutil.rmtree(folder, ignore_errors=True)
            return super().images(*tiles)

    with pytest.raises(OutputError, match=r"out.tif cannot be written .*results was removed"):
        run(make_pair(), Removing(), name="results/out.tif", **GIVEN)


def test_an_input_that_is_cut_off_meanwhile_is_one_sentence(make_pair, run, tmp_path):
    pair = make_pair(400, 400)

    class Cutting(StandIn):
        def images(self, *tiles):
            if len(self.batches) == 20:
                os.truncate(pair[0], 60_000)
            return super().images(*tiles)

    with pytest.raises(InputError, match=r"pan.tif is damaged at rows|changed while it was read"):
        run(pair, Cutting(), **GIVEN)
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.skipif(
    sys.platform != "linux", reason="on Linux nobody, not even root, can write to /proc"
)
def test_a_place_that_cannot_be_written_to_is_one_sentence(make_pair, tmp_path):
    sharpen = Pansharpener(backend=StandIn(), progress=RecordingProgress())
    with pytest.raises(
        OutputError, match=r"/proc \(No such file|/proc is not a directory that can"
    ):
        sharpen(*make_pair(), "/proc/out.tif")


def limited(run, pair, options=(), memory=None, **limits):
    """Run with limits of the system on this process; exits with 2 at an error of ours.

    ``memory`` limits the address space to so many bytes beyond what is in use.
    """
    if memory is not None:  # in this process: not all of its parent's is copied
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits["AS"] = pages * os.sysconf("SC_PAGE_SIZE") + memory
    for name, limit in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        run(pair, StandIn(pan=0.2, noise=0.01), **GIVEN | dict(options))
    except (SSDiffError, MemoryError) as error:  # of which a command makes a sentence
        os.write(1, f"{error}\n".encode())
        os._exit(2)


@needs_fork
def test_a_disk_that_is_full_is_one_sentence_and_costs_no_finished_block(
    make_pair, run, tmp_path, capfd
):
    """A limit on the size of files stands for it; the result is larger than its blocks."""
    pair = make_pair()
    expected = whole(run, pair)
    process = start(lambda: limited(run, pair, FSIZE=expected.stat().st_size // 2))
    process.join()
    assert process.exitcode == 2
    assert "out.tif cannot be written" in capfd.readouterr().out
    backend, _ = continued(run, pair)
    assert sum(backend.batches) < 49
    assert (tmp_path / "out.tif").read_bytes() == expected.read_bytes()


@needs_fork
def test_too_little_memory_is_one_sentence(make_pair, run, tmp_path, capfd):
    """A limit on the address space, below what a block of that size takes."""
    pair = make_pair(2400, 2400)
    process = start(lambda: limited(run, pair, {"block": 4000}, memory=30 << 20))
    process.join()
    assert process.exitcode == 2
    assert re.search("allocate|memory", capfd.readouterr().out)
    assert leftovers(tmp_path) == []


@needs_fork
def test_few_file_descriptors_are_enough(make_pair, run, tmp_path):
    pair = make_pair(400, 400)
    used = len(os.listdir("/proc/self/fd"))
    process = start(lambda: limited(run, pair, NOFILE=used + 24))
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "out.tif").exists()


@needs_fork
def test_a_run_that_is_killed_25_times_ends_with_the_same_file(make_pair, run, tmp_path):
    """At random moments, with kill -9; each goes on from the last finished block."""
    pair = make_pair(300, 400)
    expected = whole(run, pair).read_bytes()

    class Slow(StandIn):
        def images(self, *tiles):
            time.sleep(0.004)
            return super().images(*tiles)

    def work():
        run(pair, Slow(pan=0.2, noise=0.01), **GIVEN)

    rng, finished, killed = np.random.default_rng(0), 0, 0
    while killed < 25:
        process = start(work)
        time.sleep(rng.uniform(0, 0.25))
        process.kill()
        process.join()
        if (tmp_path / "out.tif").exists():  # it came to its end before
            assert (tmp_path / "out.tif").read_bytes() == expected
            (tmp_path / "out.tif").unlink()
            finished = 0
            continue
        killed += 1
        lines = 0
        with suppress(OSError):
            lines = (tmp_path / WORK / "journal.jsonl").read_bytes().count(b"\n") - 1
        assert lines >= finished
        finished = lines
    run(pair, StandIn(pan=0.2, noise=0.01), **GIVEN)
    assert (tmp_path / "out.tif").read_bytes() == expected
    assert sorted(leftovers(tmp_path)) == ["out.tif", "whole.tif"]


def test_what_a_run_takes_of_the_disk_is_stated(make_pair, run):
    result = run(make_pair(), **GIVEN)
    disk = result.plan.disk
    assert disk.result == disk.until_complete == 160 * 192 * 4 * 2
    assert isinstance(result.plan.sink, SpooledOutput)
    once = run(make_pair(), resume=False, name="once.tif", driver="COG", **GIVEN).plan.disk
    assert once.until_complete == disk.result + disk.result * 2 * 48 // 160
