"""CPUs of a process: affinity, quota of a container, OMP_NUM_THREADS."""

from __future__ import annotations

import os

import pytest

from ssdiff_trt.runtime import cpus
from ssdiff_trt.runtime.cpus import choose_threads, usable_cpus


@pytest.fixture
def machine(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpus, "_CGROUP", tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_the_quota_of_a_container_counts(machine, files, expected):
    for name, content in files.items():
        (machine / name).parent.mkdir(exist_ok=True)
        (machine / name).write_text(content + "\n")
    assert usable_cpus() == expected


@pytest.mark.parametrize(
    ("variable", "stated", "expected"),
    [
        (None, None, 8),
        (None, 3, 3),
        (None, 1000, 8),
        ("2", None, 2),
        ("2", 5, 5),
        ("4,2", None, 4),
        ("0", None, 8),
        ("many", None, 8),
        ("64", None, 8),
    ],
)
def test_threads_are_as_stated_and_at_most_the_cpus(
    machine, monkeypatch, variable, stated, expected
):
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert choose_threads(stated) == expected
