"""Files that appear when they are complete, or not at all."""

from __future__ import annotations

import pytest

from ssdiff_trt.runtime.errors import OutputError
from ssdiff_trt.runtime.files import atomic_write


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
