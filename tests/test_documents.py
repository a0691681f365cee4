"""Documents use full package names, their relative links resolve, and quoted paths exist."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

import ssdiff_trt
from ssdiff_trt.runtime import options

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
]
BARE_IMPORT = re.compile(r"\b(?:import|from)\s+(?:runtime|export|calibration)\b")
BARE_NAME = re.compile(r"(?<![\w./-])(?:runtime|export|calibration)(?:\.[a-z_]\w*)+")
"""A dotted module name without ``ssdiff_trt.``; file paths do not match."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
QUOTED = re.compile(r"`([^`\n]+)`")
GENERATED = {"build", "dist", "out"}
"""Folders that are not in the repository."""
FOLDERS = sorted(
    path.name
    for path in ROOT.iterdir()
    if path.is_dir() and path.name[0] != "." and path.name not in GENERATED
)
REPOSITORY_PATH = re.compile(
    rf"(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*|[\w.-]+/[\w./-]*\.(?:py|toml|md)"
)
"""Anything in a folder of the repository, and source files in any folder."""
PLACEHOLDER = "NAME"
PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="quality.md"))
"""Of the site, as its hooks get it."""


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_documents():
    names = set(map(by_name, DOCUMENTS))
    assert {"README.md", "CONTRIBUTING.md", "docs/model.md", "examples/README.md"} <= names


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_packages_have_their_full_names(document):
    text = document.read_text()
    for pattern in (BARE_IMPORT, BARE_NAME):
        assert pattern.findall(text) == []


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("from runtime.pansharpen import pansharpen", True),
        ("import calibration", True),
        ("see export.parity", True),
        ("see `runtime.schedule.sample`", True),
        ("from ssdiff_trt.runtime.pansharpen import pansharpen", False),
        ("see ssdiff_trt.export.parity", False),
        ("`runtime/schedule.py`", False),
        ("The runtime. Another sentence", False),
    ],
)
def test_bare_names_are_recognised(text, bare):
    assert any(pattern.search(text) for pattern in (BARE_IMPORT, BARE_NAME)) is bare


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_relative_links_resolve(document):
    for link in LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(document: Path) -> set[str]:
    """Anchors that GitHub derives from the headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_quoted_paths_exist(document):
    for quoted in QUOTED.findall(document.read_text()):
        if REPOSITORY_PATH.fullmatch(quoted) and PLACEHOLDER not in quoted:
            assert (ROOT / quoted).exists(), quoted


def test_every_line_on_security_names_tests_that_exist():
    text = (ROOT / "SECURITY.md").read_text()
    lines = re.findall(r"^- .*(?:\n  .*)*", text, re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)
        assert tests, line
        for path, name in tests:
            assert f"\ndef {name}(" in (ROOT / path).read_text(), name


def test_the_page_on_the_api_has_every_public_name_and_every_option():
    text = (ROOT / "docs" / "api.md").read_text()
    for name in ssdiff_trt.__all__:
        assert f"`{name}`" in text
    groups = options.PairOptions, options.SamplingOptions, options.ExecutionOptions
    for group in (*groups, options.ClusterOptions):
        for field in dataclasses.fields(group):
            assert f"`{field.name}`" in text
    for field in dataclasses.fields(options.OutputOptions):
        assert f"`{field.name}`" in text


@pytest.mark.parametrize("number", range(5))
def test_the_python_of_the_page_on_the_api_runs(number, make_pair, tmp_path, monkeypatch):
    """On a pair of one tile, by the real network."""
    text = (ROOT / "docs" / "api.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    pan, ms = make_pair(64, 64)
    for name in "abc":
        (tmp_path / f"{name}_pan.tif").write_bytes(pan.read_bytes())
        (tmp_path / f"{name}_ms.tif").write_bytes(ms.read_bytes())
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        exec(compile(blocks[number], "api.md", "exec"), {"Pansharpener": ssdiff_trt.Pansharpener})
    assert list(tmp_path.glob("*sharp.tif"))


def test_links_of_the_site_have_titles_for_documents_and_names_for_other_files():
    hooks = pytest.importorskip("mkdocs_hooks")
    text = "[report.md](report.md) [quality.json](quality.json) [a.py](../runtime/options.py)"
    changed = hooks.on_page_markdown(text, PAGE)
    assert changed == "[Report of a result](report.md) [quality.json](quality.json) a.py"


def test_roles_of_docstrings_are_not_in_the_site():
    hooks = pytest.importorskip("mkdocs_hooks")
    html = ":class:<code>~a.b.Name</code>, :data:<code>a.b</code>, <code>~/folder</code>"
    expected = "<code>Name</code>, <code>a.b</code>, <code>~/folder</code>"
    assert hooks.on_page_content(html, PAGE) == expected


def test_the_site_warns_of_a_list_that_is_text_of_a_paragraph(caplog):
    hooks = pytest.importorskip("mkdocs_hooks")
    hooks.on_page_content("<p>Some.</p><ul><li>- one</li></ul><p>1. all\n10 of them</p>", PAGE)
    assert not caplog.records
    hooks.on_page_content("<li><p>Some:\n3. <b>Values</b> and so on</p></li>", PAGE)
    assert caplog.messages == [
        "quality.md: no blank line before the list at '3. <b>Values</b> and so on'"
    ]


def test_messages_that_have_a_section_are_messages_of_the_code():
    """Each quoted heading is a part of one, as the source spells it."""
    folders = ROOT / "runtime", ROOT / "ssdiff_trt" / "cli"
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    joined = [re.sub(r'"\s+f?"', "", source) for source in sources]
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    headings = re.findall(r"^### `(.+)`$", text, re.MULTILINE)
    assert len(headings) > 10
    for heading in headings:
        assert any(heading in source for source in joined), heading


def test_the_notebook_runs(tmp_path, monkeypatch):
    """Its code, cell by cell, in a copy of the folder that it names."""
    pytest.importorskip("rioxarray")
    pytest.importorskip("dask")
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    (tmp_path / "docs").mkdir()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path / "docs")
    cells = json.loads((ROOT / "docs" / "xarray.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "xarray.ipynb", "exec"), names)
    assert names["part"].shape == (4, 120, 120)
    assert 0.1 < float(names["ndvi"].mean()) < 0.9
    assert (tmp_path / "docs" / "sharp.tif").stat().st_size > 100_000
