"""The page in a browser: controls change what is shown, and nothing goes wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from ssdiff_ref.report.report import report
from tests.support.progress import RecordingProgress
from tests.support.rasters import PAN_GRID, smooth, write_raster
from tests.support.report import bands_of
from tests.support.scenes import MS_GRID

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")

PROBE = """
<script>
window.found = [];
addEventListener("error", event => found.push("error: " + event.message));
addEventListener("securitypolicyviolation", event => found.push("blocked: " + event.blockedURI));
</script>
"""
"""Goes before the page's own code."""


def browse(folder, *options, page="page.html", seconds=60):
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    words += [f"--user-data-dir={folder / 'profile'}", "--window-size=1000,900", *options]
    done = subprocess.run(
        [*words, (folder / page).as_uri()], capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a page."""
    folder = tmp_path_factory.mktemp("page")
    pan = write_raster(folder / "pan.tif", smooth((1, 128, 160), seed=1), PAN_GRID)
    ms = write_raster(folder / "ms.tif", smooth((4, 32, 40), seed=2), MS_GRID)
    fused = smooth((4, 128, 160), seed=3)
    report(
        write_raster(folder / "out.tif", fused, PAN_GRID),
        pan,
        ms,
        folder / "page.html",
        progress=RecordingProgress(),
    )
    return folder


@pytest.fixture
def evaluated(folder):
    """What JavaScript at the end of the page finds, as JSON."""

    def evaluated(code):
        page = (folder / "page.html").read_text(encoding="utf-8")
        page = page.replace("<head>", f"<head>{PROBE}", 1).replace(
            "</body>",
            "<script>document.title = JSON.stringify("
            f"[(() => {{ {code} }})(), window.found]);</script></body>",
        )
        (folder / "probe.html").write_text(page, encoding="utf-8")
        title = re.search("<title>(.*?)</title>", browse(folder, "--dump-dom", page="probe.html"))
        value, errors = json.loads(title[1].replace("&quot;", '"').replace("&amp;", "&"))
        assert errors == []
        return value

    return evaluated


CHANGE = """
const viewer = document.querySelector(".viewer"), get = name => viewer.querySelector(name);
const set = (control, value) => {
  control.value = value;
  for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind, {bubbles: true}));
};
const shown = () => [...viewer.querySelectorAll("figure")]
  .map(one => getComputedStyle(one).display + " " + getComputedStyle(one).clipPath);
"""


def test_bands_are_chosen_by_lists_and_presets(evaluated):
    layers = """
    const layers = () => [...viewer.querySelectorAll("figure")[3].querySelectorAll("i")]
      .map(one => one.className);
    const first = layers();
    set(document.getElementById("blue"), "3");
    const second = layers();
    document.querySelectorAll("button")[1].click();
    return [first, second, layers(), document.getElementById("red").value];
    """
    first, second, third, red = evaluated(CHANGE + layers)
    assert first == ["red v0p3-2", "green v0p3-1", "blue v0p3-0"]
    assert second == ["red v0p3-2", "green v0p3-1", "blue v0p3-3"]
    assert third == ["red v0p3-3", "green v0p3-2", "blue v0p3-1"]
    assert red == "3"


def test_the_boundary_moves_and_products_are_chosen(evaluated):
    code = """
    set(get("[name=split]"), "25");
    const width = get(".stacks").offsetWidth, visible = get(".scroll").clientWidth;
    const first = shown();
    set(get("[name=left]"), "0");
    const second = shown();
    set(get("[name=beside]"), get("[name=beside]").checked = true);
    return [width, visible, first, second, shown()];
    """
    width, visible, first, second, beside = evaluated(CHANGE + code)
    at = min(width, visible) / 4
    assert [one.split()[0] for one in first] == ["none", "block", "none", "block"]
    assert [one.split()[0] for one in second] == ["block", "none", "none", "block"]
    assert first[3] == f"block inset(0px 0px 0px {at:g}px)"
    assert f"{at:g}px" in second[0]
    assert [one for one in beside if one.startswith("none")] == []


def test_zooming_keeps_the_middle_and_the_boundary_in_view(evaluated):
    code = """
    const box = get(".scroll"), stacks = get(".stacks");
    set(get("[name=zoom]"), "8");
    const middle = (box.scrollLeft + box.clientWidth / 2) / stacks.offsetWidth;
    const split = parseFloat(stacks.style.getPropertyValue("--split"));
    return [stacks.offsetWidth, stacks.offsetHeight, middle,
            (split - box.scrollLeft) / box.clientWidth, get("output").textContent, box.tabIndex];
    """
    width, height, middle, split, size, reached = evaluated(CHANGE + code)
    assert (width, height) == (8 * 160, 8 * 128)
    assert middle == pytest.approx(0.5, abs=0.01)
    assert split == pytest.approx(0.5, abs=0.01)
    assert size == "800 %"
    assert reached == 0  # by the tabulator key, then the arrows scroll


def test_the_pixels_are_those_of_the_bands(folder):
    """A screenshot: left of the boundary interpolated MS, right of it the result, in colour."""
    shot = folder / "shot.png"
    page = (folder / "page.html").read_text(encoding="utf-8")
    style = (
        "<style>body > :not(.images), .images > :not(.viewer), .viewer > :not(.scroll)"
        "{ display: none !important }"
        "body, .scroll { margin: 0 !important; padding: 0 !important }</style></head>"
    )
    (folder / "plain.html").write_text(page.replace("</head>", style, 1), encoding="utf-8")
    browse(folder, f"--screenshot={shot}", page="plain.html")
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"), float)
    zoom = 5  # 160 pixels are shown 800 wide
    for name, place in (("MS, interpolated", (60, 30)), ("Result", (60, 130))):
        expected = bands_of(page, name)[[2, 1, 0], place[0], place[1]]
        found = pixels[place[0] * zoom + 2, place[1] * zoom + 2]
        np.testing.assert_allclose(found, expected, atol=3)


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_follows_the_colours_of_the_system(folder, dark):
    shot = folder / f"dark{dark}.png"
    browse(
        folder, f"--screenshot={shot}", f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    )
    with Image.open(shot) as image:
        corner = np.asarray(image.convert("L"))[850, 5]
    assert (corner < 60) if dark else (corner > 240)


def test_it_prints(folder):
    paper = folder / "page.pdf"
    browse(folder, f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
    assert paper.read_bytes().count(b"/Subtype /Image") >= 10  # PAN and three bands of the others


def test_the_images_are_printed_where_backgrounds_are_not(evaluated):
    """Browsers leave out backgrounds, the black below the bands too, unless the page asks."""
    code = """
    const parts = document.querySelectorAll(".stack, .stack i");
    return [...parts].map(one => getComputedStyle(one).printColorAdjust);
    """
    assert set(evaluated(code)) == {"exact"}
