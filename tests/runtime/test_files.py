"""Files that appear when they are complete, or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ssdiff_trt.runtime import files
from ssdiff_trt.runtime.errors import InputError, OutputError
from ssdiff_trt.runtime.files import (
    atomic_write,
    check_parent,
    check_target,
    replace_folder,
    with_suffix,
)


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


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path):
    for name in ("there.txt", "missing.txt"):
        link, target = tmp_path / f"link-{name}", tmp_path / name
        link.symlink_to(target)
        with atomic_write(link) as unfinished:
            unfinished.write_text("new")
        assert link.is_symlink()
        assert target.read_text() == "new"


def make_folders(tmp_path):
    """An old folder, and a new one in a scratch folder."""
    old, new = tmp_path / "b.ssdiff", tmp_path / ".scratch" / "b.ssdiff"
    for folder, text in ((old, "old"), (new, "new")):
        folder.mkdir(parents=True)
        (folder / text).write_text(text)
    return old, new


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, exchanges):
    old, new = make_folders(tmp_path)
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    replace_folder(new, old)
    assert [path.name for path in old.iterdir()] == ["new"]
    (aside,) = new.parent.iterdir()
    assert [path.name for path in aside.iterdir()] == ["old"]
    replace_folder(aside, tmp_path / "other.ssdiff")
    assert (tmp_path / "other.ssdiff" / "old").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names are exchanged by a call of Linux")
def test_there_is_a_folder_at_every_moment_of_an_exchange(tmp_path, monkeypatch):
    """A kill between two renames would lose it."""
    old, new = make_folders(tmp_path)
    monkeypatch.setattr("pathlib.Path.rename", lambda *paths: pytest.fail("moved in two steps"))
    replace_folder(new, old)
    assert (old / "new").exists()


def test_a_folder_whose_place_cannot_be_taken_stays(tmp_path, monkeypatch):
    old, new = make_folders(tmp_path)
    rename = files.Path.rename
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)

    def fails(path, target):
        if path == new:
            raise OSError("no space")
        return rename(path, target)

    monkeypatch.setattr("pathlib.Path.rename", fails)
    with pytest.raises(OSError, match="no space"):
        replace_folder(new, old)
    assert (old / "old").exists()


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


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_path_without_a_name_has_none_beside_it(path):
    assert with_suffix("a/o.tif", ".json") == Path("a/o.json")
    with pytest.raises(InputError, match="is no name of a file; give one"):
        with_suffix(path, ".json")
