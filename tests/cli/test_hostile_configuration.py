"""What a command makes of hostile configurations, and of errors that click takes for others."""

from __future__ import annotations

import re

import click
import pytest

from ssdiff_trt.cli.main import run


def call(command, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ssdiff-trt", *words])
    with pytest.raises(SystemExit) as ended:
        run(command, "ssdiff-trt")
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "is not valid TOML"),
        ("ssdiff-trt.info.json = true", "json of the configuration .* is True, expected a text"),
        ("ssdiff-trt.info.json = [[1]]", "expected a text or a number; correct it"),
        ("ssdiff-trt.info.json.a = 1", "expected a text or a number; correct it"),
        ('ssdiff-trt.info.json = "a\\u0000b"', "NUL, which no file name can"),
        ('ssdiff-trt.run.bundle = "a\\u0000b"', "NUL, which no file name can"),
    ],
)
def test_a_value_that_is_none_of_its_option_is_refused(
    tmp_path, monkeypatch, capsys, text, message
):
    from ssdiff_trt.cli.trt import cli

    (tmp_path / "c.toml").write_text(text)
    monkeypatch.setenv("SSDIFF_CONFIG", str(tmp_path / "c.toml"))
    words = ["run", "pan.tif"] if "run" in text else ["info", "generic4"]
    status, errors = call(cli, words, monkeypatch, capsys)
    assert status == 2
    (line,) = errors.splitlines()
    assert line.startswith("Error: ")
    assert re.search(message, line)


def test_an_eof_error_is_no_interruption(monkeypatch, capsys):
    @click.command()
    def command():
        raise EOFError("a reader ran out of data")

    monkeypatch.setattr("sys.argv", ["ssdiff-trt"])
    with pytest.raises(EOFError, match="ran out"):
        run(command, "ssdiff-none")
    assert "Interrupted" not in capsys.readouterr().err


def test_too_little_memory_gives_one_sentence(monkeypatch, capsys):
    @click.command()
    def command():
        raise MemoryError("Unable to allocate 4.00 PiB")

    assert call(command, [], monkeypatch, capsys) == (
        2,
        "Error: There is not enough memory (Unable to allocate 4.00 PiB); free some, or give "
        "smaller files.\n",
    )
