"""Many scenes, from a table or a pattern."""

from __future__ import annotations

import pytest

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.scenes import SceneEntry, match_scenes, read_scenes


def convert(name, text):
    if name != "steps":
        raise InputError(f"There is no option {name!r}.")
    return name, int(text)


def table(tmp_path, text, encoding="utf-8"):
    (tmp_path / "a.tif").touch()
    (tmp_path / "scenes.csv").write_text(text, encoding=encoding)
    return read_scenes(tmp_path / "scenes.csv", convert)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("pan,ms,output,steps\na.tif,m.tif,o/1.tif,3\n/b.tif,x.tif|y.tif,,\n", "utf-8"),
        (
            "steps ; PAN;ms;Output\r\n3;a.tif;m.tif;o/1.tif\r\n;/b.tif;x.tif|y.tif;\r\n;;;\r\n",
            "utf-8-sig",
        ),
        ("pan\tms\toutput\tsteps\na.tif\tm.tif\to/1.tif\t3\n/b.tif\tx.tif|y.tif\t\t\n", "utf-8"),
    ],
)
def test_a_table_names_files_and_options_of_scenes(tmp_path, text, encoding):
    first, second = table(tmp_path, text, encoding)
    assert first.pan == str(tmp_path / "a.tif")
    assert first.ms == ("m.tif",)  # is not beside the table, so GDAL may know it
    assert first.output == str(tmp_path / "o/1.tif")
    assert first.options == {"steps": 3}
    assert second == SceneEntry("/b.tif", ("x.tif", "y.tif"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"has no column pan, only nothing"),
        ("pan,ms\n", r"No scene was found in .*scenes.csv"),
        ("ms\nb.tif\n", r"has no column pan, only ms; name the columns"),
        ("pan,pan\na,b\n", r"has columns of the same name: pan, pan"),
        ("pan,ms\na,b,c\n", r"another number of values in line 2; write each value that has a com"),
        ("pan,ms\na\n", r"another number of values in line 2"),
        ("pan,ms\n,b\n", r"names no pan in line 2"),
        ("pan,colour\na,b\n", r"scenes.csv, line 2: There is no option 'colour'"),
        ("pan,output\na,o.tif\nb,./o.tif\n", r"output of b, .*o.tif, is that of a too; give each"),
        ("pan,ms\na,x/m.tif\nb,y/m.tif\n", r"output of b, m_pansharpened.tif, is that of a too"),
        ("pan,ms,output\n/a,/c,/b\n/b,/d,/e\n", r"The output of /a, .*/b, is an input of /b;"),
    ],
)
def test_tables_that_do_not_work_are_refused_by_line(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        table(tmp_path, text)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"pan\na\0\n", b"pan\n" + b"a" * 200_000, None]
)
def test_damaged_tables_are_one_sentence(tmp_path, content):
    path = tmp_path / "scenes.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read as a table of scenes .*as UTF-8"):
        read_scenes(path, convert)


def test_a_pattern_finds_scenes_and_names_what_belongs_to_them(tmp_path):
    for name in ("a_pan.tif", "b[1]_pan.tif", "c_ms.tif", ".d_pan.tif"):
        (tmp_path / name).touch()
    found = match_scenes(f"{tmp_path}/*_pan.tif", [f"{tmp_path}/*_ms.tif"], "out/*.tif")
    assert [(entry.pan, entry.ms, entry.output) for entry in found] == [
        (f"{tmp_path}/{name}_pan.tif", (f"{tmp_path}/{name}_ms.tif",), f"out/{name}.tif")
        for name in ("a", "b[1]")
    ]
    (tmp_path / "p" / "x").mkdir(parents=True)
    (product,) = match_scenes(f"{tmp_path}/p/*")
    assert product == SceneEntry(str(tmp_path / "p" / "x"))


@pytest.mark.parametrize(
    ("pattern", "output", "sentence"),
    [
        ("x/*_pan.tif", None, "No scene was found in x"),
        ("x", None, r"has 0 \*, expected one; or give a table that ends in .csv"),
        ("*/*", None, r"has 2 \*"),
        ("{}/*.tif", "out.tif", r"output of .*b.tif, out.tif, is that of .*a.tif too"),
    ],
)
def test_patterns_that_do_not_work_are_refused(tmp_path, pattern, output, sentence):
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=sentence):
        match_scenes(pattern.format(tmp_path), output=output)
