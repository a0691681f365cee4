"""Requests and bytes that a run asks of a server for one window: ``requests.json`` and a table.

    python -m benchmarks.requests [-o docs]

A pair of cloud-optimised GeoTIFFs is made and served by HTTP with ranges on this machine. One
window is fused with ``--area``: with GDAL's own settings, under names that do not end as those of
TIFFs do, and with the settings of this project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import rasterio
import rasterio.shutil
from rasterio.transform import from_origin

from benchmarks.output import output_option

SIDE = 8192
"""Pixels of PAN."""
WINDOW = 512
_RECORD = "answered.txt"


class _Handler(SimpleHTTPRequestHandler):
    """Serves the files of the current folder, with ranges, and records what was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        file = Path(self.path.lstrip("/"))
        content = file.read_bytes() if file.is_file() else b""
        first, last = 0, len(content) - 1
        if given := self.headers.get("Range"):
            start, _, end = given.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or last), last)
        sent = content[first : last + 1] if self.command == "GET" else b""
        with open(_RECORD, "a") as record:
            record.write(f"{self.path} {len(sent)}\n")
        self.send_response((206 if given else 200) if content else 404)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(last - first + 1))
        if given:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *words: object) -> None:
        """Print nothing."""


def _serve(folder: Path, port: Any) -> None:
    os.chdir(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    port.send(server.server_port)
    server.serve_forever()


@dataclass(frozen=True)
class Server:
    """A server of a folder."""

    folder: Path
    url: str
    """Of the folder, without a slash at the end."""

    def answered(self) -> list[tuple[str, int]]:
        """Path and number of bytes of each answer since the last call."""
        record = self.folder / _RECORD
        lines = record.read_text().splitlines() if record.exists() else []
        record.unlink(missing_ok=True)
        return [(path, int(size)) for path, _, size in (line.rpartition(" ") for line in lines)]


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server of a folder, in a process of its own: GDAL waits for it with the GIL."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(folder, there), daemon=True)
    process.start()
    try:
        yield Server(folder, f"http://127.0.0.1:{here.recv()}")
    finally:
        process.terminate()
        process.join()


def make_pair(folder: Path, side: int = SIDE) -> None:
    """Write ``pan.tif`` and ``ms.tif``, cloud-optimised, of random values at several scales."""
    rng = np.random.default_rng(0)
    scene = np.zeros((4, side, side), np.float32)
    for scale in (4, 32, 256):
        coarse = rng.random((4, side // scale, side // scale), np.float32)
        scene += coarse.repeat(scale, 1).repeat(scale, 2) * 600
    bands = scene.reshape(4, side // 4, 4, side // 4, 4).mean((2, 4))
    for name, image, resolution in (("pan", scene.mean(0)[None], 0.5), ("ms", bands, 2.0)):
        profile: dict[str, Any] = {
            "count": len(image),
            "height": image.shape[1],
            "width": image.shape[2],
            "dtype": "uint16",
            "crs": "EPSG:32631",
            "transform": from_origin(500000, 5700000, resolution, resolution),
        }
        plain = folder / "plain.tif"
        with rasterio.open(plain, "w", driver="GTiff", **profile) as file:
            file.write(image.astype(np.uint16))
        rasterio.shutil.copy(plain, folder / f"{name}.tif", driver="COG", compress="DEFLATE")
        plain.unlink()


def fuse_window(server: Server, output: Path, suffix: str) -> dict[str, Any]:
    """What fusing one window asks of the server."""
    server.answered()
    middle, size = 0.25 * SIDE, 0.25 * WINDOW
    left, top = 500000 + middle, 5700000 - middle
    area = f"{left - size},{top - size},{left + size},{top + size}"
    words = [sys.executable, "-c", "from ssdiff_trt.cli.trt import main; main()", "run"]
    files = {name: f"/{name}{suffix}" for name in ("pan", "ms")}
    words += [*(server.url + file for file in files.values()), "-o", str(output), "--overwrite"]
    subprocess.run([*words, "--area", area], check=True)
    asked = server.answered()
    return {
        "requests": len(asked),
        **{
            f"requests of {name}": sum(path == file for path, _ in asked)
            for name, file in files.items()
        },
        "requests of other files": sum(path not in files.values() for path, _ in asked),
        "MB": round(sum(size for _, size in asked) / 1e6, 1),
    }


@click.command()
@output_option
def main(output: Path) -> None:
    """Measure, write requests.json and print the table."""
    with tempfile.TemporaryDirectory() as temporary, serving(Path(temporary)) as server:
        make_pair(server.folder)
        for name in ("pan", "ms"):
            (server.folder / f"{name}.image").hardlink_to(server.folder / f"{name}.tif")
        result = server.folder / "result.tif"
        report = {
            "pixels of PAN": SIDE,
            "pixels of the window": WINDOW,
            "MB of both files": round(
                sum((server.folder / name).stat().st_size for name in ("pan.tif", "ms.tif")) / 1e6,
                1,
            ),
            "GDAL's own settings": fuse_window(server, result, ".image"),
            "settings of this project": fuse_window(server, result, ".tif"),
        }
    (output / "requests.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
