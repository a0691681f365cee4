"""What limits a country a day, on paper: ``country.json`` and a table.

    python -m benchmarks.country [-o docs]

Measured is what one machine needs for everything but the network, here; the time of the network and
the bytes of a scene are those of beside.json and requests.json. All else is arithmetic from the
assumptions below.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rasterio.transform import Affine

from benchmarks.memory import GRID, RUN, write_large
from benchmarks.output import output_option
from ssdiff_trt.runtime.raster.affine import product

AREA = 357_000
"""km², about that of Germany; no overlap of scenes."""
PIXEL, BANDS = 0.3, 8
"""Metres, and bands of MS."""
DAY = 86400
TASK = 0.001
"""Seconds that dask's scheduler is assumed to need for a block; not measured here."""
BLOCK = 2016**2 / 1e6
"""Mpixel of a block."""
WORKERS = (1, 10, 100, 1000)
SIDE = 5000


def rest() -> float:
    """Seconds a Mpixel of PAN of eight bands, of a run whose network does no work."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pan = write_large(folder / "pan.tif", SIDE, 1, GRID)
        ms = write_large(folder / "ms.tif", SIDE // 4, BANDS, product(GRID, Affine.scale(4)))
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", RUN, pan, ms, folder / "sharp.tif"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return (time.monotonic() - began) / (SIDE**2 / 1e6)


def row(workers: int, network: float, writer: float) -> dict[str, Any]:
    """What so many workers do in a day, and what limits them."""
    rate = workers / network  # Mpixel/s
    commands = max(1, round(0.5 + rate * writer))  # each writes 1 / writer Mpixel/s
    return {
        "workers": workers,
        "Mpixel/s": round(rate, 1),
        "km² a day": round(rate * DAY * 1e6 * PIXEL**2 / 1e6),
        "days for the country": round(AREA / (rate * DAY * PIXEL**2), 1),
        "commands that write": commands,
        "MB/s read": round(rate * 2 * (1 + BANDS / 16), 1),
        "MB/s written": round(rate * 2 * BANDS, 1),
        "blocks/s": round(rate / BLOCK, 2),
        "share of dask's scheduler": f"{rate / BLOCK * TASK:.2%}",
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
    for each in rows:
        cells = (f"{cell:,}" if not isinstance(cell, str) else cell for cell in each.values())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@output_option
def main(output: Path) -> None:
    """Measure, write country.json and print the table."""
    methods = json.loads((output / "beside.json").read_text())["methods"]
    writer = rest()
    network = methods["OpenVINO, BF16"]["s"]
    rows = [row(workers, network, writer) for workers in WORKERS]
    report = {
        "area, km²": AREA,
        "pixel of PAN, m": PIXEL,
        "bands": BANDS,
        "Mpixel of PAN": round(AREA / PIXEL**2),
        "s a Mpixel, two cores, BF16": network,
        "s a Mpixel, everything but the network": round(writer, 2),
        "s of dask's scheduler for a block, assumed": TASK,
        "rows": rows,
    }
    (output / "country.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(table(rows))
    print({key: value for key, value in report.items() if key != "rows"})


if __name__ == "__main__":
    main()
