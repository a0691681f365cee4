"""Every command of the project in README and the documents, run on tiny scenes.

Commands of a page run one after another in one folder, which has the files that they name. What
takes minutes is marked slow; what needs a GPU has to end with one sentence that says so.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import click
import h5py
import pytest
from click.testing import CliRunner

from ssdiff_trt.cli import calibrate, export, ref, trt
from ssdiff_trt.runtime.bundle.store import bundle_for
from tests.support.imagery import pair
from tests.support.products import geoeye
from tests.support.rasters import PAN_GRID, write_raster
from tests.support.scenes import MS_GRID

ROOT = Path(__file__).parent.parent
PROGRAMS = {
    "ssdiff-trt": trt.cli,
    "ssdiff-ref": ref.cli,
    "ssdiff-export": export.cli,
    "ssdiff-calibrate": calibrate.cli,
}
LONG = (
    r"\badapt\b|--adapt|\bbench\b|ssdiff-export|sensitivity|\btrain\b|finetune|\bpack\b|int8|"
    r"mine\.ssdiff|collect"
)
"""Commands that take long, and those that need what they write."""
SHORTER = {
    "--minutes 10": "--minutes 6",
    "--minutes 60": "--minutes 2",
    "--adapt 10": "--adapt 6",
    "ssdiff-trt bench": "ssdiff-trt bench --repeats 2 --rounds 1 --seconds 0",
    "--steps 1,2,10": "--steps 1",
    "--batch 1,8,32": "--batch 1,2",
    "-o runtime/bundles/": "-o ",
    "--workers 4": "--workers 1",
    "--scheduler tcp://10.0.0.1:8786": "--workers 1",
    "--scheduler scheduler.json": "--workers 1",
    "https://server/": "",
    "-o s3://bucket/": "-o memory://bucket/",
    "s3://bucket/": "",
}
"""What is changed so that they take less, and need no other machine."""
MINUTES = {"adapt": "6", "finetune": "0.05"}
"""Of commands that take long unless they say how long; a busy machine may ask for more."""
ELSEWHERE = r"--backend tensorrt( |$)(?!--backend)|ssdiff-trt build(?!.*--gpu)"
"""Commands that need a GPU, which say so in one sentence."""
NO_GPU = "GPU|No TensorRT is installed|[Nn]one of the candidates|works on this machine"


RECIPE = """
bands = 4
validate_every = 2
save_every = 2
validation_patches = 2
[[stages]]
iterations = 2
patch = 32
batch = 2
[[sources]]
name = "imagery"
files = ["*.tif"]
held_out = 0.4
"""


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = (shlex.join(shlex.split(line, comments=True)) for line in lines)
    return [line for line in words if line.partition(" ")[0] in PROGRAMS]


PAGES = {
    str(page.relative_to(ROOT)): found
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if (found := commands(page))
}


def write_files(folder: Path, side: int) -> None:
    """The files that the documents name."""
    for name, seed in (("", 1), ("2", 2), ("3", 3)):
        pan, ms = pair(seed, 4, side, side)
        names = ("blue", "green", "red", "nir")
        write_raster(folder / f"pan{name}.tif", pan[None], PAN_GRID)
        write_raster(folder / f"ms{name}.tif", ms, MS_GRID, descriptions=names)
    for index, name in enumerate(("b", "g", "r", "nir")):
        write_raster(folder / f"{name}.tif", ms[index : index + 1], MS_GRID)
    for where in ("in", "out", "sharp"):
        (folder / where).mkdir()
    for name in "ab":
        for role in ("pan", "ms"):
            shutil.copy(folder / f"{role}.tif", folder / "in" / f"{name}_{role}.tif")
    for number in "12":
        geoeye(folder / "deliveries" / number)
    geoeye(folder / "PRODUCT")
    for name in ("fused", "truth"):
        shutil.copy(folder / "ms.tif", folder / f"{name}.tif")
    bands = [{"common_name": name} for name in ("blue", "green", "red", "nir")]
    assets = {"pan": {"href": "pan.tif"}, "ms": {"href": "ms.tif", "eo:bands": bands}}
    item = {"type": "Feature", "id": "scene", "properties": {}, "assets": assets}
    (folder / "item.json").write_text(json.dumps(item))
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "scenes.csv").write_text(
        "pan,ms,output\npan.tif,ms.tif,sharp/one.tif\npan2.tif,ms2.tif,sharp/two.tif\n"
    )
    corners = [[3.0, 51.451], [3.0001, 51.452]]
    (folder / "field.geojson").write_text(
        json.dumps({"type": "MultiPoint", "coordinates": corners})
    )


def write_h5(path: Path) -> None:
    """A file of PanCollection with one sample."""
    pan, ms = pair(6, 4, 96, 96)
    _, coarse = pair(6, 4, 24, 24)
    lms = coarse.repeat(4, 1).repeat(4, 2)
    with h5py.File(path, "w") as file:
        for name, image in (("gt", ms), ("ms", coarse), ("lms", lms), ("pan", pan[None, ::4, ::4])):
            file[name] = image[None].astype("float64")


def run(command: str) -> None:
    for long, short in SHORTER.items():
        command = command.replace(long, short)
    program, *words = shlex.split(command)
    if words[0] in MINUTES and "--minutes" not in words:
        words += "--minutes", MINUTES[words[0]]
    if "-o" in words:
        output = Path(words[words.index("-o") + 1])
        shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
    done = CliRunner().invoke(PROGRAMS[program], words)
    if wanted := re.search(r"of \d+ minutes, .* give (\d+) or more", str(done.exception), re.I):
        words[words.index("--adapt" if "--adapt" in words else "--minutes") + 1] = wanted[1]
        done = CliRunner().invoke(PROGRAMS[program], words)
    if re.search(ELSEWHERE, command):
        assert done.exit_code != 0
        assert re.search(NO_GPU, f"{done.exception}{done.output}"), command
    else:
        assert done.exit_code == 0, f"{command}: {done.exception}\n{done.output}"
    if "ssdiff-ref adapt" in command and not Path("mine.ssdiff").exists():
        assert "nothing was written" in done.output  # these scenes may gain nothing
        shutil.copytree(bundle_for(4).path, "mine.ssdiff")


def chosen(page: str, long: bool) -> list[str]:
    return [line for line in PAGES[page] if bool(re.search(LONG, line)) == long]


@pytest.mark.parametrize("page", [page for page in PAGES if chosen(page, False)])
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch):
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))
    write_files(tmp_path, 80 if page == "docs/quality.md" else 32)
    for line in chosen(page, False):
        run(line)


def test_every_page_with_commands_is_known():
    assert {"README.md", "docs/quickstart.md", "docs/runs.md", "docs/quality.md"} <= set(PAGES)
    assert sum(len(lines) for lines in PAGES.values()) > 40


def mentioned(text: str) -> list[str]:
    """Commands of the project, its scripts and its Makefile in code of a document."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    code = (" ".join(one.split()) for one in (*lines, *spans))
    programs = "|".join((*PROGRAMS, "make", r"python -m benchmarks\.[a-z.]+"))
    return [one for one in code if re.match(rf"({programs})( |$)", one)]


def unknown(command: str) -> list[str]:
    """What a command names that is not there."""
    program, *words = shlex.split(command, comments=True)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return [word for word in words if "=" not in word and word not in targets]
    if program == "python":
        found = getattr(import_module(words[1]), "main", None)
        words = words[2:]
        if found is None:  # a script without options
            return words
    else:
        found = PROGRAMS[program]
    if isinstance(found, click.Group) and words:
        if words[0] not in found.commands:
            return words[:1]
        found = found.commands[words[0]]
    known = {flag for param in found.params for flag in (*param.opts, *param.secondary_opts)}
    return [word for word in words if word.startswith("-") and word not in known | {"--help"}]


DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_what_a_document_names_of_a_command_exists(page):
    """In sentences too, and of scripts that measure for hours."""
    for command in mentioned(page.read_text()):
        assert not unknown(command), command


def test_what_does_not_exist_is_found():
    text = (
        "`make nothing`, `ssdiff-trt\nrun --pen 3`, `ssdiff-ref rum`, "
        "`python -m benchmarks.tiles -x`"
    )
    commands = mentioned(text + "\n```sh\nmake demo  # all\nssdiff-trt \\\n  info\n```\n")
    assert len(commands) == 6
    assert [*map(unknown, commands)] == [[], [], ["nothing"], ["--pen"], ["rum"], ["-x"]]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if chosen(page, True)])
def test_the_long_commands_of_a_page_run(page, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from ssdiff_ref.network.checkpoint import load_checkpoint, released_tensors

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSDIFF_CACHE", str(tmp_path / "cache"))
    write_files(tmp_path, 128)
    torch.save(released_tensors(load_checkpoint(bundle_for(8).path).net), "mine.pt")
    shutil.copytree(bundle_for(4).path, "mine.ssdiff")
    (tmp_path / "imagery").mkdir()
    for name, seed in (("a", 4), ("b", 5)):
        _, image = pair(seed, 4, 480, 480)
        write_raster(tmp_path / "imagery" / f"{name}.tif", image, MS_GRID)
    write_h5(tmp_path / "test_qb_multiExm1.h5")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    for line in chosen(page, True):
        run(line)
