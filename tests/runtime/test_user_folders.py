"""The user's cache, which nobody else can write to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ssdiff_trt.runtime.errors import OutputError
from ssdiff_trt.runtime.user_folders import make_cache


@pytest.mark.parametrize("folder", ["file", "file/engines", "/proc", "/proc/engines", "n" * 300])
def test_a_cache_that_cannot_be_written_to_is_told_with_the_way_out(tmp_path, folder):
    """/proc stands for what is read-only, as the tests may run as root."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written to .* set SSDIFF_CACHE to a folder"):
        make_cache(tmp_path / Path(folder))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize("umask", [0, 0o22, 0o277])
def test_the_cache_is_made_for_this_user_alone_whatever_the_umask(tmp_path, umask):
    tmp_path.chmod(0o755)
    old = os.umask(umask)
    try:
        make_cache(tmp_path / "cache" / "ssdiff-trt" / "engines")
    finally:
        os.umask(old)
    for name in ("cache", "cache/ssdiff-trt", "cache/ssdiff-trt/engines"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o755  # as it was
