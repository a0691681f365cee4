"""CPUs of a process: affinity, quota of a container, OMP_NUM_THREADS."""

from __future__ import annotations

import os

import pytest

from ssdiff_trt.runtime import cpus
from ssdiff_trt.runtime.backends.onnxruntime import open_session
from ssdiff_trt.runtime.cpus import choose_threads, usable_cpus
from ssdiff_trt.runtime.errors import InputError, SSDiffWarning


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """8 CPUs; control groups are made in the folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpus, "_CGROUP", tmp_path)
    monkeypatch.setattr(cpus, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


V1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("", {}, 8),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "10000 100000"}, 1),
        ("0::/", {"cpu.max": "9900000 100000"}, 8),
        ("0::/", {"cpu.max": "nonsense"}, 8),
        # the least on the way up counts, wherever it is
        ("0::/pod/box", {"pod/box/cpu.max": "300000 100000"}, 3),
        ("0::/pod/box", {"pod/box/cpu.max": "max 100000", "pod/cpu.max": "200000 100000"}, 2),
        ("0::/pod/box", {"pod/box/cpu.max": "100000 100000", "pod/cpu.max": "200000 100000"}, 1),
        ("0::/pod/box", {"pod/other/cpu.max": "100000 100000"}, 8),
        ("0::/of/the/host", {"cpu.max": "400000 100000"}, 4),
        ("", {f"cpu/{V1[0]}": "300000", f"cpu/{V1[1]}": "100000"}, 3),
        ("3:cpu,cpuacct:/", {f"cpu/{V1[0]}": "-1", f"cpu/{V1[1]}": "100000"}, 8),
        ("3:cpu:/pod", {f"cpu/pod/{V1[0]}": "50000", f"cpu/pod/{V1[1]}": "100000"}, 1),
        (
            "4:memory:/m\n3:cpu,cpuacct:/pod",
            {f"cpu,cpuacct/pod/{V1[0]}": "200000", f"cpu,cpuacct/pod/{V1[1]}": "100000"},
            2,
        ),
        ("2:cpuset:/pod", {f"cpu/pod/{V1[0]}": "50000", f"cpu/pod/{V1[1]}": "100000"}, 8),
    ],
)
def test_the_quota_of_a_container_counts(machine, membership, files, expected):
    (machine / "membership").write_text(f"{membership}\n" if membership else "")
    for name, content in files.items():
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).write_text(content + "\n")
    assert usable_cpus() == expected


@pytest.mark.parametrize(
    ("variable", "stated", "expected"),
    [
        (None, None, 8),
        (None, 3, 3),
        ("2", None, 2),
        ("2", 5, 5),
        ("4,2", None, 4),
        (" 4 ", None, 4),
        ("", None, 8),
        ("0", None, 8),
        ("-3", None, 8),
        ("abc", None, 8),
        ("64", None, 8),
    ],
)
def test_threads_are_as_stated_and_at_most_the_cpus(
    machine, monkeypatch, variable, stated, expected
):
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert choose_threads(stated) == expected


def test_more_threads_than_cpus_are_cut_with_a_word_and_fewer_than_one_refused(machine):
    with pytest.warns(SSDiffWarning, match="`threads` is 1000, and this process may use 8 CPUs"):
        assert choose_threads(1000) == 8
    for wrong in (0, -1):
        with pytest.raises(InputError, match="does not work"):
            choose_threads(wrong)


def test_engines_get_the_number_of_threads(machine, monkeypatch):
    """Without one, ONNX Runtime takes every CPU; PyTorch reads the number at its import."""
    import onnxruntime

    taken = []
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda graph, options, **more: taken.append(options)
    )
    (machine / "cpu.max").write_text("300000 100000\n")
    for providers in (["CPUExecutionProvider"], [("CUDAExecutionProvider", {})]):
        open_session(b"", providers)
    assert [options.intra_op_num_threads for options in taken] == [3, 3]
