"""``ssdiff-trt run``: many scenes, cost without work, and progress for programs."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from ssdiff_trt.cli.trt import cli
from tests.support.commands import call
from tests.support.rasters import PairMaker, leftovers


def invoke(*words):
    """Run the command in this process; gives the exit status."""
    return cli.main(list(map(str, words)), "ssdiff-trt", standalone_mode=False)


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """Two scenes, one between them that is damaged, and a table of the three."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        folder = tmp_path / name
        folder.mkdir()
        _, ms = PairMaker(folder)(80, 80)
        if name == "b":
            ms.write_bytes(ms.read_bytes()[:3000])
    given = {"a": ",", "b": ",", "c": "2,12"}
    rows = [f"{n}/pan.tif,{n}/ms.tif,out/{n}.tif,{words}" for n, words in given.items()]
    columns = "pan,ms,output,steps,tile-overlap"
    (tmp_path / "scenes.csv").write_text("\n".join([columns, *rows]))
    return tmp_path


def test_a_scene_that_fails_does_not_stop_the_others(scenes, capsys):
    words = ["run", "--scenes", "scenes.csv", "--seed", 5]
    assert invoke(*words, "--json", "report.json") == 1
    printed = capsys.readouterr()
    assert "Scene 3 of 3: " in printed.err
    assert "b/pan.tif failed: ms.tif is damaged" in printed.err
    assert "3 scenes: 2 done, 1 failed" in printed.err
    assert "failed" in printed.out
    report = json.loads((scenes / "report.json").read_text())
    assert report["counts"] == {"done": 2, "failed": 1}
    first, second, third = report["scenes"]
    assert (first["status"], second["status"], third["status"]) == ("done", "failed", "done")
    tags = [scene["summary"]["tags"] for scene in (first, third)]
    assert [tag["SSDIFF_STEPS"] for tag in tags] == ["1", "2"]
    assert [tag["SSDIFF_SEED"] for tag in tags] == ["5", "5"]
    assert [tag["SSDIFF_TILE_OVERLAP"] for tag in tags] == ["8", "12"]
    assert "damaged" in second["error"]
    assert sorted(os.listdir(scenes / "out")) == ["a.tif", "c.tif"]

    # The same command again does what is left, and keeps what is there.
    before = (scenes / "out" / "a.tif").stat().st_mtime_ns
    PairMaker(scenes / "b")(80, 80)
    assert invoke(*words, "-q") == 0
    assert (scenes / "out" / "a.tif").stat().st_mtime_ns == before
    assert sorted(os.listdir(scenes / "out")) == ["a.tif", "b.tif", "c.tif"]

    # With other options, or inputs that changed, the results are not those of this command.
    capsys.readouterr()
    os.utime(scenes / "a" / "pan.tif")
    assert invoke("run", "--scenes", "scenes.csv", "--seed", 6, "--quicklook") == 1
    error = capsys.readouterr().err
    assert error.count("exists, and not as this command would make it") == 3
    assert invoke(*words, "--overwrite", "-q") == 0
    assert (scenes / "out" / "a.tif").stat().st_mtime_ns > before


def test_a_pattern_of_scenes(scenes):
    words = ["run", "--scenes", "*/pan.tif", "--ms", "*/ms.tif", "-o", "sharp/*.tif", "-q"]
    words += ["--area", "500000,5699980,500010,5700000"]
    assert invoke(*words, "--json", "r.json") == 1
    assert sorted(os.listdir(scenes / "sharp")) == ["a.tif", "c.tif"]
    invoke(*words, "--dry-run", "--json", "r.json", "--overwrite")
    report = json.loads((scenes / "r.json").read_text())
    assert [scene["status"] for scene in report["scenes"]] == ["complete", "failed", "complete"]
    words[words.index("sharp/*.tif")] = "other/*.tif"
    invoke(*words, "--dry-run", "--json", "r.json", "--overwrite")
    report = json.loads((scenes / "r.json").read_text())
    assert report["counts"] == {"planned": 2, "failed": 1}
    assert report["scenes"][0]["summary"]["estimate"]["tiles"] == 2
    assert not (scenes / "other").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "PAN, --scenes or --stac is needed; give one of them."),
        (["a/pan.tif", "--scenes", "scenes.csv"], "PAN and --scenes were given; give one"),
        (["--scenes", "scenes.csv", "-o", "x.tif"], "--ms and -o are columns of the table"),
        (["--scenes", "scenes.csv", "--uncertainty", "u.tif"], "--uncertainty is a column of the"),
        (
            ["--scenes", "*/pan.tif", "--ms", "*/ms.tif", "-o", "*.tif", "--uncertainty", "u.tif"],
            "u.tif, is the uncertainty of a/pan.tif too; give each scene its own",
        ),
        (
            ["a/pan.tif", "a/ms.tif", "--uncertainty", "ms_pansharpened.tif"],
            "Invalid value for '--uncertainty': ms_pansharpened.tif is the result itself",
        ),
        (
            ["a/pan.tif", "a/ms.tif", "--uncertainty", "u.tif", "--json", "u.tif"],
            "--json u.tif is another file of this command",
        ),
        (["--scenes", "nothing.csv"], "nothing.csv cannot be read as a table of scenes"),
        (["--scenes", "odd.csv"], "line 2: There is no option 'json' of a scene"),
        (["--scenes", "bad.csv"], "line 2: Invalid value for '--steps': 'x' is not a valid"),
    ],
)
def test_mistakes_about_scenes_are_one_sentence(scenes, words, sentence):
    (scenes / "odd.csv").write_text("pan,json\na/pan.tif,x\n")
    (scenes / "bad.csv").write_text("pan,steps\na/pan.tif,x\n")
    done = call("run", *words, cwd=scenes)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_scenes_with_uncertainty_are_complete_where_both_files_are(scenes, capsys):
    words = ["run", "--scenes", "*/pan.tif", "--ms", "*/ms.tif", "-o", "o/*.tif", "-q"]
    shutil.rmtree(scenes / "b")
    words += ["--area", "500000,5699980,500010,5700000", "--uncertainty", "u/*.tif"]
    assert invoke(*words, "--json", "r.json") == 0
    report = json.loads((scenes / "r.json").read_text())
    names = [scene["summary"]["uncertainty"] for scene in report["scenes"]]
    assert names == ["u/a.tif", "u/c.tif"]
    before = [(scenes / name).stat().st_mtime_ns for name in names]
    assert invoke(*words) == 0
    assert [(scenes / name).stat().st_mtime_ns for name in names] == before
    (scenes / "u" / "a.tif").unlink()
    (scenes / "o" / "c.tif").unlink()
    capsys.readouterr()
    assert invoke(*words) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "o/a.tif exists, and not as this command would make it; give another --output" in error
    assert "u/c.tif exists, and not as this command would make it; give another --unc" in error
    assert (scenes / "u" / "c.tif").stat().st_mtime_ns == before[1]


def test_a_dry_run_prints_assumptions_and_cost_and_writes_nothing(make_pair, tmp_path, capsys):
    pair = make_pair(100, 120)
    output = tmp_path / "out.tif"
    assert (
        invoke("run", *pair, "-o", output, "--dry-run", "--json", "-", "--area", "0,0,1e6,1e7") == 0
    )
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert summary["estimate"]["tiles"] == 25
    assert summary["full_scale"] == {"pan": 2047, "ms": 2047}
    assert summary["size"] == {"height": 100, "width": 120}
    assert "does not exist" not in printed.err
    for text in ("Full scale: PAN 2047", "25 tiles in 1 block: up to ", "Memory: up to ", "Disk: "):
        assert text in printed.err
    assert not leftovers(tmp_path)


def test_a_folder_that_is_missing_is_named_once_where_a_run_creates_it(
    make_pair, tmp_path, monkeypatch, capsys
):
    pair = make_pair(64, 64)
    monkeypatch.chdir(tmp_path)
    words = ["run", *pair, "-o", "deep/er/out.tif", "--uncertainty", "deep/er/error.tif"]
    assert invoke(*words, "--dry-run") == 0
    line = "The folder deep/er does not exist; the run creates it"
    assert capsys.readouterr().err.splitlines().count(line) == 1
    assert not (tmp_path / "deep").exists()
    assert invoke(*words) == 0
    assert capsys.readouterr().err.splitlines().count(line) == 1
    assert invoke(*words, "--overwrite") == 0
    assert "does not exist" not in capsys.readouterr().err


def test_progress_for_programs_is_one_object_a_line(make_pair, tmp_path):
    pan, ms = make_pair(100, 120)
    done = call("run", pan, ms, "--progress", "json", "--dtype", "uint8", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(set(line) == {"stage", "done", "total", "eta", "message", "level"} for line in lines)
    work = [line for line in lines if line["message"] is None]
    assert work[0] == {**work[0], "stage": "Tiles", "done": 0, "total": 25, "eta": None}
    assert work[-1]["done"] == 25
    assert work[-1]["eta"] == 0
    warnings = [line["message"] for line in lines if line["level"] == "warning"]
    assert any("did not fit into the data type" in text for text in warnings)
    for words in (["nothing.tif"], [ms, "--nonsense"], [ms, "--steps", "x"]):
        failed = call("run", pan, *words, "--progress", "json", cwd=tmp_path)
        assert failed.returncode == 2
        (line,) = map(json.loads, failed.stderr.splitlines())
        assert line["level"] == "error"
