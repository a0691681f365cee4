"""``ssdiff-ref``, as typed: tables, files and pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.image import imread

from ssdiff_ref.evaluation.evaluate import evaluate
from ssdiff_ref.evaluation.picture import Gallery
from ssdiff_ref.evaluation.report import print_tables
from ssdiff_trt.cli.main import run as run_program
from ssdiff_trt.cli.ref import cli
from ssdiff_trt.runtime.errors import SSDiffError
from ssdiff_trt.runtime.sensors import SENSORS
from tests.support.imagery import pair, write_pair


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["ssdiff-ref", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        run_program(cli, "ssdiff-ref")
    return end.value.code


def test_the_three_commands_work_together(tmp_path, monkeypatch, capsys):
    pan, ms = write_pair(tmp_path, *pair(0, 4, 96, 96))
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "simulate", pan, ms, "-o", "wald", "--sensor", "qb") == 0
    for method in ("gsa", "EXP"):
        given = ("wald/pan.tif", "wald/ms.tif", "--method", method, "--sensor", "qb")
        assert run(monkeypatch, "fuse", *given, "-o", f"{method}.tif", "-q") == 0
    capsys.readouterr()
    given = ("gsa.tif", "EXP.tif", "--reference", "wald/reference.tif", "--sensor", "qb")
    assert run(monkeypatch, "evaluate", *given, "--json", "fused.json") == 0
    assert "gsa" in capsys.readouterr().out
    direct = evaluate([pan, ms], sensor="qb", methods=["GSA", "EXP"]).mean("reduced")
    scores = json.loads((tmp_path / "fused.json").read_text())["reduced"]
    # On the way there, images were rounded, and mirrored at the edges.
    for ours, theirs in (("gsa", "GSA"), ("EXP", "EXP")):
        assert scores[ours] == pytest.approx(direct[theirs], rel=0.02)


def test_a_mistake_is_one_sentence_and_status_2(tmp_path, monkeypatch, capsys):
    inputs = write_pair(tmp_path, *pair(0, 4, 80, 80))
    for arguments in (
        ("evaluate", *inputs, "--sensor", "wv3", "--bands", "1,2,3"),
        ("fuse", *inputs, "--method", "best"),
        ("simulate", *inputs, "-o", inputs[0]),
        ("evaluate", *inputs),
    ):
        assert run(monkeypatch, *arguments) == 2
        captured = capsys.readouterr()
        assert not captured.out
        assert "Error: " in captured.err
        assert "Traceback" not in captured.err


def test_quiet_says_nothing(tmp_path, monkeypatch, capsys):
    inputs = write_pair(tmp_path, *pair(0, 4, 80, 80))
    given = ("--sensor", "qb", "--method", "EXP", "--csv", tmp_path / "s.csv", "-q")
    assert run(monkeypatch, "evaluate", *inputs, *given) == 0
    assert capsys.readouterr() == ("", "")
    # Without a file the scores would be lost.
    assert run(monkeypatch, "evaluate", *inputs, *given[:4], "-q") == 0
    captured = capsys.readouterr()
    assert "ERGAS" in captured.out
    assert "R-ERGAS" in captured.out
    assert captured.err == ""


def test_the_picture_shows_the_reference_and_every_method(tmp_path, golden_mat):
    path = tmp_path / "p.png"
    evaluate([golden_mat], sensor="wv3", methods=["EXP", "GSA"], picture=path)
    image = imread(path)
    height, width, _ = image.shape
    side = 220  # crops of 55 pixels, 96 less the crop of 41, at 4 or 5 times their size
    assert 3 * side < width < 3 * side + 350
    assert 2 * side < height < 2 * side + 250
    assert image[..., :3].std() > 0.2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p.png"]


def test_the_picture_has_no_hole_in_it_if_that_can_be_avoided(tmp_path):
    truth, valid = np.zeros((4, 200, 200)), np.ones((200, 200), bool)
    truth[:, ::2, :100] = 1000  # texture, on the left
    truth[:, :30] = 0
    valid[::90, :150] = False
    gallery = Gallery(SENSORS["qb"])
    gallery.set_reference(truth, 21, valid=valid)
    rows, cols = gallery.window
    assert valid[rows, cols].all()
    assert rows.stop - rows.start == cols.stop - cols.start == 64
    assert (truth[0, rows, cols] > 0).mean() > 0.48  # stripes all over, but for the edge


@pytest.mark.parametrize("option", ["json", "csv", "picture"])
def test_nothing_is_overwritten_unasked(tmp_path, golden_mat, option):
    path = tmp_path / f"out.{'png' if option == 'picture' else option}"
    path.write_text("mine")
    options = {"sensor": "wv3", "methods": ["EXP"], option: path}
    with pytest.raises(SSDiffError, match=rf"exists; give another `{option}` or pass `overwrite`"):
        evaluate([golden_mat], **options)
    assert path.read_text() == "mine"
    evaluate([golden_mat], **options, overwrite=True)
    assert path.stat().st_size > 100


def test_the_table_fits_a_terminal_and_marks_the_best(golden_mat, become_terminal, capsys):
    become_terminal()
    found = evaluate([golden_mat], sensor="wv3", methods=["EXP", "GSA", "MTF-GLP-HPM-R"])
    print_tables(found)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    gsa, hpm_r = (
        next(line for line in lines if line.split()[:1] == [name])
        for name in ("GSA", "MTF-GLP-HPM-R")
    )
    scores = found.mean("reduced")
    for column, metric in enumerate(scores["GSA"], start=1):
        low = metric in ("SAM", "ERGAS")
        best = (min if low else max)(scores, key=lambda name: scores[name][metric])
        for name, line in (("GSA", gsa), ("MTF-GLP-HPM-R", hpm_r)):
            assert line.split()[column].endswith("*") == (name == best)
