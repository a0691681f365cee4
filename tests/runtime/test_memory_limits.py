"""What a scene needs is compared with what there is before anything is tried."""

from __future__ import annotations

import os
import shutil

import pytest

from ssdiff_trt.runtime import cpus, memory
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.memory import check_memory, check_space, in_words, usable_memory


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """8 GB without a limit on the address space; control groups are made in the folder."""
    amounts = {"SC_PHYS_PAGES": 8_000_000, "SC_PAGE_SIZE": 1000}
    monkeypatch.setattr(os, "sysconf", amounts.__getitem__)
    monkeypatch.setattr(cpus, "_CGROUP", tmp_path)
    monkeypatch.setattr(cpus, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(memory, "_stated", lambda: iter(()))
    return tmp_path


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("", {}, 8e9),
        ("0::/", {"memory.max": "max"}, 8e9),
        ("0::/", {"memory.max": "3000000000"}, 3e9),
        ("0::/", {"memory.max": "9000000000000"}, 8e9),
        ("0::/pod/box", {"pod/box/memory.max": "max", "pod/memory.max": "2000000000"}, 2e9),
        ("4:memory:/m", {"memory/m/memory.limit_in_bytes": "1000000000"}, 1e9),
        ("4:cpu:/m", {"memory/m/memory.limit_in_bytes": "1000000000"}, 8e9),
        ("", {"memory/memory.limit_in_bytes": "9223372036854771712"}, 8e9),
    ],
)
def test_the_limit_of_a_container_counts(machine, membership, files, expected):
    (machine / "membership").write_text(f"{membership}\n" if membership else "")
    for name, content in files.items():
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).write_text(content + "\n")
    assert usable_memory() == expected


def test_a_system_that_does_not_say_has_a_plain_limit(machine, monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert usable_memory() == 64e9
    sentence = "A scene takes 65 GB of memory or more, .* may use 64 GB; cut it"
    with pytest.raises(InputError, match=sentence):
        check_memory(65e9, "A scene", "cut it")
    check_memory(64e9, "A scene", "cut it")


def test_a_limit_on_the_address_space_counts(machine, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.undo()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5_000_000, 6_000_000))
    assert usable_memory() == 5e6


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 kB"), (999, "0.999 kB"), (25.6e9, "25.6 GB"), (1e12, "1 TB"), (1e25, "1e+07 EB")],
)
def test_sizes_in_words(size, words):
    assert in_words(size) == words


def test_a_result_that_may_not_fit_on_the_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 8000))
    assert check_space(tmp_path / "a" / "b.tif", 8000) == ()
    (warning,) = check_space(tmp_path / "a" / "b.tif", 4000, 4001)
    assert "takes up to 4 kB where it cannot be compressed, finished blocks up to 4 kB" in warning
    assert f"{tmp_path} has 8 kB left" in warning
