"""Folders of unfinished work: of living processes, of dead ones, and of others."""

from __future__ import annotations

import os
import sys

import pytest

from ssdiff_trt.runtime.errors import OutputError
from ssdiff_trt.runtime.files import atomic_write
from ssdiff_trt.runtime.scratch import scratch_folder, work_folder, work_folder_of


def dead_folder(tmp_path, *files, age=3600):
    """What a process that was killed has left."""
    folder = tmp_path / ".old.tif.x1y2.unfinished"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("half")
    os.utime(folder, (1_000_000_000, 1_000_000_000) if age else None)
    return folder


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    dead = dead_folder(tmp_path, "lock", "a.tif")
    with atomic_write(tmp_path / "b.txt") as unfinished:
        unfinished.write_text("all of it")
        assert not dead.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


@pytest.mark.parametrize(
    ("files", "age"),
    [
        (("lock", "journal.jsonl"), 1),  # can be continued
        (("lock",), 0),  # of a process that begins now
        (("a.tif",), 1),  # somebody else's
    ],
)
def test_what_is_not_known_to_be_dead_is_kept(tmp_path, files, age):
    kept = dead_folder(tmp_path, *files, age=age)
    with atomic_write(tmp_path / "b.txt") as unfinished:
        unfinished.write_text("all of it")
    assert kept.exists()


def test_what_a_living_process_works_on_is_kept(tmp_path):
    with scratch_folder(tmp_path / "a.txt") as mine:
        os.utime(mine, (1_000_000_000, 1_000_000_000))
        with atomic_write(tmp_path / "b.txt") as unfinished:
            unfinished.write_text("all of it")
        assert mine.exists()
    assert not mine.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize("trap", ["link", "open"])
def test_a_folder_of_work_that_others_could_have_written_is_refused(tmp_path, trap):
    """What lies in it would be taken for our own finished blocks, or lead elsewhere."""
    place = work_folder_of(tmp_path / "a.tif")
    if trap == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.mkdir()
        place.chmod(0o777)
    with (
        pytest.raises(OutputError, match=r"unfinished (is a link|can be written to by others)"),
        work_folder(tmp_path / "a.tif", lambda: False, "output"),
    ):
        pass
    assert place.exists()


def test_the_folder_of_long_names_is_found_again(tmp_path):
    for name in ("a.tif", "b" * 251 + ".tif", "c" * 251 + ".tif"):
        with work_folder(tmp_path / name, lambda: True, "output") as folder:
            assert folder == work_folder_of(tmp_path / name)
    assert len({work_folder_of(tmp_path / (c * 251 + ".tif")) for c in "bc"}) == 2
