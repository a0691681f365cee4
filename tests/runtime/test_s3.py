"""Inputs and results in an S3-compatible store: a server of moto in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.support.rasters import read_raster

pytest.importorskip("moto.server", reason="moto is not installed")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
PROGRAM = """
from moto.server import ThreadedMotoServer
import sys
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def endpoint(monkeypatch):
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with server:
        port = server.stdout.readline().strip()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_S3_ENDPOINT": f"127.0.0.1:{port}",
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }.items():
            monkeypatch.setenv(name, value)
        yield f"http://127.0.0.1:{port}"
        server.stdin.close()


def test_a_pair_of_a_bucket_is_fused_into_the_bucket(endpoint, make_pair, tmp_path, monkeypatch):
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))
    pan, ms = make_pair(64, 64)
    store = s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True)
    store.mkdir("bucket")
    for file in (pan, ms):
        store.put_file(str(file), f"bucket/{file.name}")
    for output in ("s3://bucket/sharp.tif", str(tmp_path / "here.tif")):
        program = "from ssdiff_trt.cli.trt import main; main()"
        words = ["run", "s3://bucket/pan.tif", "s3://bucket/ms.tif", "-o", output]
        done = subprocess.run(
            [sys.executable, "-c", program, *words, "--shift", "none"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    store.get_file("bucket/sharp.tif", str(tmp_path / "there.tif"))
    images = [read_raster(tmp_path / f"{name}.tif") for name in ("here", "there")]
    np.testing.assert_array_equal(*images)
