"""What commands print: names as they are, work of any size, tables on terminals and in pipes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.table import Table

from ssdiff_ref.evaluation.judging import Evaluation
from ssdiff_ref.evaluation.report import print_tables as print_scores
from ssdiff_trt.cli.info import describe
from ssdiff_trt.runtime.benchmark.results import read_benchmark
from ssdiff_trt.runtime.benchmark.tables import print_tables as print_benchmark
from ssdiff_trt.runtime.progress import Bar, Lines, print_text
from ssdiff_trt.runtime.raster.radiometry import Scale
from ssdiff_trt.runtime.sensors import SENSORS

BENCH_BEFORE = Path(__file__).parents[2] / "tests" / "golden" / "bench-before.json"
LONG = "many words " * 30 + "x" * 200
MARKUP = ["[red]x[/red]", "[/]", ":red_circle:"]


@pytest.mark.parametrize("name", MARKUP)
def test_a_console_shows_names_as_they_are(capsys, name):
    table = Table(name, title=f"title {name}")
    table.add_row(f"cell {name}")
    print_text(f"line {name}", table)
    printed = capsys.readouterr().out
    for place in ("line", "title", "cell"):
        assert f"{place} {name}" in printed


@pytest.mark.parametrize("name", MARKUP)
def test_a_bar_shows_names_as_they_are(monkeypatch, name):
    bar = Bar()
    monkeypatch.setattr(bar._console, "_file", io.StringIO())
    bar.note(f"note {name}")
    with bar:
        bar.start(f"task {name}", 2)
        bar.advance(1)
        (row,) = bar._bar.make_tasks_table(bar._bar.tasks).columns[0].cells
        assert row.plain == f"task {name}"
    assert f"note {name}" in bar._console.file.getvalue()


@pytest.mark.parametrize("name", MARKUP)
def test_every_table_shows_names_as_they_are(capsys, bundle4, name):
    old = bundle4.manifest
    source = old.provenance.model_copy(update={"licence": f"by {name}", "weights": f"w {name}"})
    manifest = old.model_copy(update={"name": name, "provenance": source})
    describe(replace(bundle4, manifest=manifest))
    printed = capsys.readouterr().out
    for text in (f"{name} (", f"by {name}", f"w {name}"):
        assert text in printed

    evaluation = Evaluation(SENSORS["generic"], Scale(1, "test"), 0, range(4), range(4), 1)
    metrics = ("SAM", "ERGAS", "Q2n", "SCC", "PSNR", "SSIM")
    evaluation.add("reduced", name, dict.fromkeys(metrics, 1.0))
    print_scores(evaluation)
    assert f" {name} " in f" {capsys.readouterr().out}".replace("\n", " ")

    benchmark = read_benchmark(BENCH_BEFORE)
    case, *_ = benchmark.cases
    opened = {name: benchmark.candidates[case.candidate]}
    cases = (case.model_copy(update={"candidate": name}),)
    changes = {"cases": cases, "candidates": opened, "scenes": ()}
    print_benchmark(benchmark.model_copy(update=changes))
    assert f"\n {name} " in capsys.readouterr().out


def test_work_of_no_pieces_is_shown(capsys):
    lines = Lines()
    with lines:
        lines.start("Nothing", 0)
        lines.advance(0)
        lines.advance(1)
    assert "Nothing: 1/1" in capsys.readouterr().err


def lines(capsys):
    table = Table("name", "value", title=LONG)
    table.add_row("a", LONG)
    print_text(table, f"[x] {LONG}")
    return capsys.readouterr().out.splitlines()


def test_output_that_is_piped_is_neither_wrapped_nor_cut(capsys):
    printed = lines(capsys)
    assert printed[0] == LONG
    assert sum(LONG in line for line in printed) == 3
    assert printed[-1] == f"[x] {LONG}"
    assert not [line for line in printed if line.endswith(" ")]


def test_output_on_a_terminal_fits_it(become_terminal, capsys):
    become_terminal()
    printed = lines(capsys)
    assert max(map(len, printed)) == 80
