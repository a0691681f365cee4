"""Tables of docs/weights.md from what ``python -m benchmarks.quality --name weights`` wrote.

    python -m benchmarks.weights docs/weights.json [--bundle generic4]

For each scene the best of the classical methods, column by column, beside a bundle; at full
resolution MTF-GLP-FS and GSA beside it; and means over the scenes for every bundle in the file.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import click

BUNDLE = "ssdiff:"
REDUCED = {"ERGAS": min, "SAM": min, "Q2n": max}
"""Measures at reduced resolution, and which of two values is better."""
FULL = ("R-ERGAS", "D_rho", "detail", "overshoot", "period 4")
COMPARED = ("MTF-GLP-FS", "GSA")

Scene = dict[str, dict[str, dict[str, float]]]


def best(scene: Scene, measure: str) -> float:
    """Of the classical methods and interpolation."""
    scores = scene["reduced"]
    return float(REDUCED[measure](scores[name][measure] for name in scores if BUNDLE not in name))


def number(value: float) -> str:
    """As tables of the field show it; a dash for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if abs(value) >= 1 else f"{value:.4f}".replace("0.", ".", 1)


def row(*cells: Any) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def reduced(scenes: dict[str, Scene], name: str) -> list[str]:
    """The bundle beside the best of the classical methods, scene by scene."""
    header = [f"{measure}: best classical, {name}" for measure in REDUCED]
    lines = [row("scene", *header), "|---" * (1 + len(header)) + "|"]
    for scene, scores in scenes.items():
        cells = []
        for measure, better in REDUCED.items():
            theirs, ours = best(scores, measure), scores["reduced"][BUNDLE + name][measure]
            shown = [number(theirs), number(ours)]
            winner = int(better(theirs, ours) == ours)
            shown[winner] = f"**{shown[winner]}**"
            cells.append(", ".join(shown))
        lines.append(row(scene, *cells))
    return lines


def full(scenes: dict[str, Scene], name: str) -> list[str]:
    """The bundle beside some classical methods at full resolution, scene by scene."""
    lines = [row("scene", "method", *FULL), "|---" * (2 + len(FULL)) + "|"]
    for scene, scores in scenes.items():
        shown = scene
        for method in (*COMPARED, BUNDLE + name):
            if method in scores["full"]:
                values = [number(scores["full"][method][measure]) for measure in FULL]
                lines.append(row(shown, method.removeprefix(BUNDLE), *values))
                shown = ""
    return lines


def means(scenes: dict[str, Scene]) -> list[str]:
    """Every bundle: relative to the best of the classical methods, and at full resolution."""
    first = next(iter(scenes.values()))["reduced"]
    names = [name for name in first if BUNDLE in name]
    columns = [
        "ERGAS / best classical",
        "SAM / best classical",
        "Q2n",
        "R-ERGAS",
        "D_rho",
        "detail",
    ]
    lines = [row("weights", *columns), "|---" * (1 + len(columns)) + "|"]
    for name in names:
        relative = [
            mean(
                scores["reduced"][name][measure] / best(scores, measure)
                for scores in scenes.values()
            )
            for measure in ("ERGAS", "SAM")
        ]
        q2n = mean(scores["reduced"][name]["Q2n"] for scores in scenes.values())
        at_full = [scores["full"][name] for scores in scenes.values() if scores["full"]]
        rest = [mean(scores[measure] for scores in at_full) for measure in columns[3:]]
        values = map(number, (*relative, q2n, *rest))
        lines.append(row(name.removeprefix(BUNDLE), *values))
    return lines


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--bundle", default="generic4", show_default=True)
def main(path: Path, bundle: str) -> None:
    """Print the tables."""
    scenes = json.loads(path.read_text("utf-8"))["scenes"]
    for table in (reduced(scenes, bundle), full(scenes, bundle), means(scenes)):
        click.echo("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
