"""Processes of the benchmark import what the program does, and nothing of the working directory."""

from __future__ import annotations

import pytest

from ssdiff_trt.runtime.benchmark.results import Opened
from ssdiff_trt.runtime.benchmark.rounds import _run_job
from ssdiff_trt.runtime.benchmark.worker import Job
from ssdiff_trt.runtime.errors import InputError


def refuse(name, bundle, **options):
    raise InputError("This opener was found.")


def test_a_module_in_the_working_directory_is_not_imported(tmp_path, monkeypatch):
    for name in ("json", "pydantic", "numpy", "ssdiff_trt"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    job = Job(
        task="open",
        bundle="generic4",
        opener=f"{__name__}:refuse",
        backend="x",
        precision="auto",
        batches=(1,),
        threads=1,
    )
    with pytest.raises(InputError, match=r"This opener was found\."):
        _run_job(job, Opened)
    assert not (tmp_path / "trace").exists()
