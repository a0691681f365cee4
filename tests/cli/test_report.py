"""``ssdiff-trt report``, and the report of a run."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from ssdiff_trt.cli.trt import cli
from ssdiff_trt.runtime.errors import InputError, OutputError
from tests.support.products import geoeye
from tests.support.rasters import leftovers


def invoke(*words):
    """Run the command in this process; gives the exit status."""
    return cli.main(list(map(str, words)), "ssdiff-trt", standalone_mode=False)


def test_a_run_reports_what_it_assumed_and_did(make_pair, tmp_path, capsys):
    pair = make_pair(96, 96)
    page = tmp_path / "new" / "page.html"
    words = "run", *pair, "-o", tmp_path / "o.tif", "--uncertainty", tmp_path / "e.tif"
    assert invoke(*words, "--report", page, "--shift", "1,0", "--seed", 3) == 0
    text = page.read_text(encoding="utf-8")
    printed = capsys.readouterr().err
    assert f"{page}: report" in printed
    for sentence in (
        "Full scale: PAN 2047 (that of the bundle&#x27;s sensor, generic)",
        "MS is moved by +1.00 rows and +0.00 columns of PAN (as stated)",
        "Seed 3",
        "Reduced to the resolution of MS",
        "There were none.",
    ):
        assert f"<li>{sentence}" in text
    assert '<th scope="row">Backend</th><td>ONNX Runtime' in text
    assert '<option value="3">nir</option>' in text
    assert "Expected absolute error" in text


def test_the_report_afterwards_is_beside_the_result(make_pair, tmp_path):
    pan, ms = make_pair(64, 64)
    assert invoke("run", pan, ms, "-o", tmp_path / "o.tif", "-q") == 0
    words = "report", tmp_path / "o.tif", "--pan", pan, "--ms", ms, "-q"
    assert invoke(*words) in (0, None)
    page = tmp_path / "o.html"
    before = page.read_text(encoding="utf-8")
    assert "generic4" in before
    with pytest.raises(OutputError, match=r"o\.html exists"):
        invoke(*words)
    assert invoke(*words, "--overwrite") in (0, None)
    assert page.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--report", "page.pdf"), r"page\.pdf is no name for one; end in \.html"),
        (("--report", "there.html"), r"there\.html exists"),
        (("--report", "page.html", "--json", "page.html"), "is another file of this command"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_the_run(
    make_pair, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    pair = make_pair(64, 64)
    (tmp_path / "there.html").write_text("mine")
    with pytest.raises((OutputError, click.UsageError), match=message):
        invoke("run", *pair, "-o", "o.tif", *words)
    assert leftovers(tmp_path) == ["there.html"]


def test_a_run_that_is_stopped_at_its_report_says_what_there_is(
    make_pair, tmp_path, monkeypatch, capsys
):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("ssdiff_trt.cli.report.report_run", stop)
    output = tmp_path / "o.tif"
    with pytest.raises(click.Abort):
        invoke("run", *make_pair(64, 64), "-o", output, "--report", tmp_path / "p.html")
    printed = capsys.readouterr().err
    assert f"{output} is complete; ssdiff-trt report can make its page" in printed
    assert output.exists()


def test_many_scenes_have_no_report_in_common():
    with pytest.raises(click.UsageError, match="--report is for one scene"):
        invoke("run", "--scenes", "a/*_pan.tif", "--report", "page.html")


def test_a_result_that_is_uploaded_has_no_report():
    with pytest.raises(click.UsageError, match="--report needs the result on a disk"):
        invoke("run", "pan.tif", "ms.tif", "-o", "memory://a/o.tif", "--report", "page.html")


def test_the_bands_of_the_run_are_asked_for(make_pair, tmp_path):
    pan, ms = make_pair(64, 64)
    invoke("run", pan, ms, "-o", tmp_path / "o.tif", "-q", "--bands", "2,1,3,4")
    words = "report", tmp_path / "o.tif", "--pan", pan, "--ms", ms, "-q"
    with pytest.raises(InputError, match=r"pass `bands=2,1,3,4`"):
        invoke(*words)
    assert invoke(*words, "--bands", "2,1,3,4") in (0, None)


def test_a_product_is_pan_and_ms(tmp_path):
    geoeye(tmp_path / "PRODUCT")
    assert invoke("run", tmp_path / "PRODUCT", "-o", tmp_path / "o.tif", "-q") == 0
    words = "report", tmp_path / "o.tif", "--pan", tmp_path / "PRODUCT", "-q"
    assert invoke(*words) in (0, None)
    assert "True colour</button>" in (tmp_path / "o.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("missing", ["scipy", "matplotlib"])
@pytest.mark.parametrize("words", ["run {0} {1} -o o.tif --report p.html", "report {0} --pan {0}"])
def test_without_the_extra_there_is_one_sentence(make_pair, tmp_path, missing, words):
    arguments = words.format(*make_pair(64, 64)).split()
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"sys.argv = ['ssdiff-trt', *{arguments!r}]\n"
        "from ssdiff_trt.cli.trt import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {missing} is not installed; pip install 'ssdiff-trt[")
    assert done.stderr.count("\n") == 1
    assert leftovers(tmp_path) == []
