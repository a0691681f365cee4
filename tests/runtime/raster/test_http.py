"""Rasters on a server that stops answering."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.options import PairOptions
from ssdiff_trt.runtime.raster.scene import Scene


@pytest.fixture
def serve(monkeypatch):
    """Serves the start of a file, and is silent from then on."""
    for name in ("GDAL_HTTP_TIMEOUT", "GDAL_HTTP_CONNECTTIMEOUT", "GDAL_HTTP_LOW_SPEED_TIME"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    end, servers = threading.Event(), []

    def serve(content, available):
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(0, len(content) - 1)

            def do_GET(self):
                first, last = self.headers.get("Range", "bytes=0-").partition("=")[2].split("-")
                self.answer(int(first), min(int(last or len(content)), len(content) - 1))

            def answer(self, first, last):
                if not available:
                    end.wait()
                    return
                self.send_response(206 if "Range" in self.headers else 200)
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(last - first + 1))
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content[first : min(last + 1, available)])
                    if last >= available:
                        end.wait()

            def log_message(self, *words):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{server.server_port}/pan.tif"

    yield serve
    end.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("available", "sentence"),
    [(0, "The PAN image cannot be read"), (40_000, r"pan\.tif is damaged at rows")],
    ids=["silent", "stops in the middle"],
)
def test_a_server_that_stops_answering_is_told(serve, make_pair, available, sentence):
    pan, ms = make_pair(512, 512)
    url = serve(pan.read_bytes(), available)

    def read():
        with Scene(url, ms, PairOptions()) as scene:
            scene.read(scene.rows, scene.cols)

    with pytest.raises(InputError, match=sentence):
        read()


def test_a_user_decides_how_long_to_wait():
    program = (
        "import os; os.environ['GDAL_HTTP_TIMEOUT'] = '7'\n"
        "import ssdiff_trt.runtime.raster.gdal, rasterio\n"
        "print(os.environ['GDAL_HTTP_TIMEOUT'], os.environ['GDAL_HTTP_LOW_SPEED_TIME'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "7 30\n"
