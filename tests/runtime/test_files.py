"""Files that appear when they are complete, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssdiff_trt.runtime.errors import OutputError
from ssdiff_trt.runtime.files import atomic_write, check_parent, check_target, make_cache


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as unfinished:
        unfinished.write_text("all of it")
        assert not path.exists()
    assert path.read_text() == "all of it"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_leaves_nothing(tmp_path):
    def write():
        with atomic_write(tmp_path / "a.txt") as unfinished:
            unfinished.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(
            OutputError, match=r"Nothing can be written to .*file \((Not a directory|File exists)\)"
        ),
        atomic_write(tmp_path / "file" / "a.txt"),
    ):
        pass


def test_folders_above_a_file_are_made_and_go_with_a_failure(tmp_path):
    with atomic_write(tmp_path / "a" / "b" / "c.txt") as unfinished:
        unfinished.write_text("all of it")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "all of it"
    with pytest.raises(KeyError), atomic_write(tmp_path / "d" / "e" / "f.txt"):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "n\udcff.json"])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, name):
    """The temporary name beside it is not longer."""
    check_target(tmp_path / name, (), overwrite=False)
    with atomic_write(tmp_path / name) as unfinished:
        unfinished.write_text("all of it")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("path", ["a" * 256, "ä" * 128, f"{'a' * 300}/b", f"new/{'a' * 300}/b"])
def test_a_longer_name_is_refused(tmp_path, path):
    for check in (check_parent, lambda path: check_target(path, (), overwrite=False)):
        with pytest.raises(OutputError, match=r"(expected 255 at most|File name too long)"):
            check(tmp_path / path)


@pytest.mark.parametrize("folder", ["file", "file/engines", "/proc", "/proc/engines", "n" * 300])
def test_a_cache_that_cannot_be_written_to_is_told_with_the_way_out(tmp_path, folder):
    """/proc stands for what is read-only, as the tests may run as root."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written to .* set SSDIFF_CACHE to a folder"):
        make_cache(tmp_path / Path(folder))
