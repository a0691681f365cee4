"""Workers that die, hang, take too much memory or return something else than their block."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from ssdiff_trt import BackendError, Pansharpener, Progress
from ssdiff_trt.runtime.blocks import LocalExecutor, Wanted
from ssdiff_trt.runtime.cluster import assignments
from ssdiff_trt.runtime.cluster.job import Answer, digest, pixels_of
from tests.support.rasters import leftovers

pytest.importorskip("distributed")

from tests.support.cluster import BLOCKS, Once, changed, other_values, stand_in

AREA = (500_000, 5_699_976, 500_024, 5_700_000)
"""The first block of a pair, in the CRS of PAN."""


def again(progress):
    """What was shown of blocks that were computed again."""
    return [note for note in progress.notes if "is computed again" in note]


def test_a_worker_that_is_killed_costs_its_block(two, on_workers, pair, expected):
    process = two.process(1)
    result, progress = on_workers(pair, progress=Once(lambda: os.kill(process, signal.SIGKILL)))
    (note,) = again(progress)
    assert "(worker 1: it was lost)" in note
    assert result.output.read_bytes() == expected
    assert sum(worker.blocks for worker in result.workers) == BLOCKS


def test_a_worker_that_hangs_costs_its_block_and_is_restarted(
    two, on_workers, pair, expected, monkeypatch
):
    monkeypatch.setattr(assignments, "LEAST", 3.0)
    process = two.process(1)
    result, progress = on_workers(pair, progress=Once(lambda: os.kill(process, signal.SIGSTOP)))
    (note,) = again(progress)
    assert "(worker 1: it took too long)" in note
    (warning,) = progress.warnings
    assert warning == "The worker 1 is left out: it did not compute a block in 3 s"
    assert result.output.read_bytes() == expected
    two.client.wait_for_workers(2, timeout=30)
    assert two.process(1) != process
    assert not os.path.exists(f"/proc/{process}")


def test_a_worker_that_takes_too_much_memory_costs_its_block(two, on_workers, pair, expected):
    result, progress = on_workers(pair, progress=Once(lambda: two.set(1, "takes memory")))
    assert 1 <= len(again(progress)) <= 3
    assert all("(worker 1: it was lost)" in note for note in again(progress))
    assert result.output.read_bytes() == expected


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raises", "RuntimeError: the disk of this worker is full"),
        ("other values", "its pixels are not those that the worker computed, by their sha256"),
    ],
)
def test_a_worker_that_returns_no_block_is_left_out(two, on_workers, pair, expected, fault, reason):
    two.set(1, fault)
    result, progress = on_workers(pair)
    assert len(again(progress)) == assignments.FAILURES
    assert all(reason in note for note in again(progress))
    assert progress.warnings == ["The worker 1 is left out: it did not compute 3 blocks in a row"]
    assert [worker.blocks for worker in result.workers if worker.name == "1"] == [0]
    assert result.output.read_bytes() == expected


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (None, None),
        (lambda answer: None, "a NoneType was returned, expected a block"),
        (changed(rows=lambda rows: range(1, 49)), "other windows were returned than those"),
        (changed(values=lambda values: values[:, 1:]), r"it has an array \[4, 47, 48\] of float32"),
        (changed(values=lambda values: values[:3]), r"\[3, 48, 48\] of float32, expected \[4, 48"),
        (changed(values=lambda values: values.astype(float)), "of float64, expected"),
        (changed(valid=lambda valid: valid[1:]), r"it has an array \[47, 48\] of bool"),
        (changed(values=lambda values: values * np.float32("nan")), "values that are not finite"),
        (changed(values=other_values), "its pixels are not those that the worker computed"),
        (changed(valid=lambda valid: ~valid), "its pixels are not those that the worker computed"),
        (lambda answer: replace(answer, record={"tiles": 1}), "it does not count what a block"),
        (
            lambda answer: replace(answer, record=answer.record | {"tiles": 7}),
            "its pixels are not those that the worker computed",
        ),
    ],
)
def test_what_is_no_block_is_not_taken(pair, standin4, tmp_path, fault, reason):
    with (
        Pansharpener(standin4, backend=stand_in()) as sharpener,
        sharpener.plan(*pair, tmp_path / "out.tif", area=AREA, shift="none") as plan,
    ):
        (block,) = plan.blocks
        answers = []

        def take(pixels):
            parts, record = list(pixels.parts), pixels.tally.record()
            answers.append(Answer(parts, record, digest(parts, record), 1.0))

        wanted = Wanted(plan, [block], lambda: None, take, Progress())
        LocalExecutor(stand_in(), stand_in).compute(wanted)
        if fault is None:
            pixels = pixels_of(plan, block, answers[0])
            assert pixels.place == (range(48), range(48))
            assert pixels.tally.record() == answers[0].record
            return
        with pytest.raises(ValueError, match=reason):
            pixels_of(plan, block, fault(answers[0]))


def test_where_no_worker_can_open_what_it_needs_the_run_ends(on_workers, pair, tmp_path):
    with pytest.raises(
        BackendError, match=r"No worker can be used \(The backend is not there\); start"
    ):
        on_workers(pair, precision="int8")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("fault", ["raises", "dies"])
def test_a_block_that_nothing_computes_ends_the_run_and_the_rest_is_kept(
    two, on_workers, run, pair, expected, tmp_path, fault
):
    def both():
        two.set(0, fault)
        two.set(1, fault)

    reason = "the disk of this worker is full" if fault == "raises" else "it was lost"
    with pytest.raises(
        BackendError,
        match=rf"The block of rows \d+ to \d+ and columns \d+ to \d+ of PAN could not be computed "
        rf"in 4 tries, the last one by worker \d: .*{reason}; correct that, and run the same",
    ):
        on_workers(pair, progress=Once(both))
    assert leftovers(tmp_path) == [".out.tif.unfinished", "expected.tif"]
    result = run(pair, stand_in())
    assert result.output.read_bytes() == expected
