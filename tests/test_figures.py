"""Figures in the tables of documents are those that scripts wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    adaptation,
    beside,
    country,
    engines,
    int8,
    memory,
    performance,
    quality,
    registration,
    scale,
    steps,
    tiles,
    uncertainty,
    weights,
    work,
)
from tests.support.figures import NUMBER, comes_from, page_of, report

WORD = re.compile(r"[A-Za-z]{3}")


def of_scenes(resolution: Any) -> Callable[[Any], str]:
    return lambda report: quality.table(report["scenes"], resolution)


def of_weights(part: Callable[..., list[str]], *arguments: str) -> Callable[[Any], str]:
    return lambda report: "\n".join(part(report["scenes"], *arguments))


def _joined(runs: dict[str, dict[str, float]]) -> dict[str, str]:
    """The run that was killed and the one that continued it, in one row."""
    both = runs["killed"], runs["continued"]
    return {key: " ".join(str(run[key]) for run in both) for key in runs["killed"]}


PRINTED: dict[tuple[str, str], tuple[Sequence[str], Callable[..., str]]] = {
    ("README", "| scene | ERGAS ↓: best"): (["weights"], of_weights(weights.reduced, "generic4")),
    ("adaptation", "| scene | blocks |"): (
        ["adaptation"],
        lambda report: adaptation.table(report["scenes"]),
    ),
    ("gpu", "| batch | fp32, tiles of 64"): (
        ["engines"],
        lambda report: engines.table(report["engines"]),
    ),
    ("int8", "| scene | bundle | ERGAS"): (["int8"], lambda report: int8.table(report["scenes"])),
    ("performance", "| a tile and step |"): (
        ["performance", "performance64", "performance-second"],
        lambda *reports: performance.table(list(reports)),
    ),
    ("performance", "| method | s a Mpixel of PAN"): (["beside"], beside.table),
    ("performance", "| method, eight bands |"): (["beside8"], beside.table),
    ("performance", "| PAN |"): (["memory"], memory.table),
    ("performance", "| | FP16 products |"): (["work"], work.table),
    ("quality", "| scene | method | SAM |"): (["quality"], of_scenes("reduced")),
    ("quality", "| scene | method | HQNR |"): (["quality"], of_scenes("full")),
    ("runs", "| run | seconds |"): (
        ["resume"],
        lambda report: "\n".join(
            f"| | {run['seconds']} | {run['peak_mb']} | {run['disk_mb']} |"
            for run in (*report["runs"].values(), _joined(report["runs"]))
        ),
    ),
    ("scale", "| run | seconds |"): (["scale"], lambda report: scale.table(report["runs"])),
    ("scale", "| workers | Mpixel/s |"): (
        ["country"],
        lambda report: country.table(report["rows"]),
    ),
    ("scenes", "    | pairs | deviation"): (
        ["registration"],
        lambda report: registration.table([registration.Case(**case) for case in report]),
    ),
    ("steps", "| sampler | placement |"): (["steps"], steps.table),
    ("uncertainty", "| scene | fitted |"): (
        ["uncertainty"],
        lambda report: uncertainty.markdown(report["scenes"]),
    ),
    ("weights", "| tile, steps |"): (["tiles"], lambda report: tiles.markdown(report["table"])),
    ("weights", "| scene | ERGAS: best"): (["weights"], of_weights(weights.reduced, "generic4")),
    ("weights", "| scene | method | R-ERGAS"): (["weights"], of_weights(weights.full, "generic4")),
    ("weights", "| weights | ERGAS / best"): (
        ["additions", "weights"],
        lambda *reports: "\n".join(of_weights(weights.means)(report) for report in reports),
    ),
}
"""By page and start of the table: JSON files, and what makes a table of them."""


def cells(row: str) -> list[str]:
    """Of a row of a table."""
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def figures(row: str) -> list[str]:
    """The numbers of a row's cells, without those of its first and of sentences."""
    kept = [cell for cell in cells(row)[1:] if not WORD.search(cell)]
    return [number.replace(",", "") for cell in kept for number in NUMBER.findall(cell)]


def tables(page: Path, start: str) -> list[list[str]]:
    """Rows of the tables of a page whose first line starts so."""
    lines = iter(page.read_text().splitlines())
    found = []
    for line in lines:
        if line.startswith(start):
            next(lines)
            rows = []
            for row in lines:
                if not row.strip().startswith("|"):
                    break
                rows.append(row)
            found.append(rows)
    return found


@pytest.mark.parametrize(("page", "start"), PRINTED)
def test_the_figures_of_a_table_come_from_its_json(page, start):
    names, table = PRINTED[page, start]
    printed = [figures(row) for row in table(*map(report, names)).splitlines()]
    rows = [row for found in tables(page_of(page), start) for row in found]
    assert rows
    for row in rows:
        shown = figures(row)
        assert shown, row
        assert any(comes_from(shown, figures_of_row) for figures_of_row in printed), row


def test_the_scores_of_the_first_page_are_marked_as_printed():
    (rows,) = tables(page_of("README"), "| scene | ERGAS ↓: best")
    printed = weights.reduced(report("weights")["scenes"], "generic4")
    assert [*map(cells, rows)] == [*map(cells, printed[2 : 2 + len(rows)])]


def test_a_figure_that_no_script_wrote_is_found():
    assert figures("| **GSA**, 3 | 1,024.5 s | -.0398 | of 8 methods | 3.6 x |") == [
        "1024.5",
        "-.0398",
        "3.6",
    ]
    assert comes_from(["34.1", "-.04"], ["34.09", "7", "-.0398"])
    assert not comes_from(["34.2"], ["34.09"])
    assert not comes_from(["7", "7"], ["34.09", "7"])
