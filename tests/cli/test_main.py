"""What all commands have in common: errors, defaults, JSON, examples, completion."""

from __future__ import annotations

import json
import re
import shlex
import sys
from importlib import import_module
from types import SimpleNamespace

import click
import pytest

from ssdiff_trt.cli.main import run
from ssdiff_trt.cli.process import show_unraisable

PROGRAMS = {
    "ssdiff-trt": "trt",
    "ssdiff-export": "export",
    "ssdiff-calibrate": "calibrate",
    "ssdiff-ref": "ref",
}


def command_of(program):
    return import_module(f"ssdiff_trt.cli.{PROGRAMS[program]}").cli


def commands():
    """Every command with its words on the command line."""
    found = []
    for program in PROGRAMS:
        command = command_of(program)
        if isinstance(command, click.Group):
            found += [(f"{program} {name}", sub) for name, sub in command.commands.items()]
        else:
            found.append((program, command))
    return found


@pytest.fixture
def type_in(capsys, monkeypatch, tmp_path):
    """Runs a command line in this process: exit status, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSDIFF_CONFIG", str(tmp_path / "none.toml"))

    def type_in(line):
        program, *words = shlex.split(line)
        monkeypatch.setattr("sys.argv", [program, *words])
        sys.stderr.reconfigure(errors="backslashreplace")  # as that of Python is
        with pytest.raises(SystemExit) as ended:
            run(command_of(program), program)
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return type_in


RASTERS = "pan.tif ms.tif"
VALID = {
    "ssdiff-trt run": f"{RASTERS} -o out.tif",
    "ssdiff-trt verify": "generic4 --precision fp16",
    "ssdiff-trt bench": "generic4",
    "ssdiff-trt info": "generic4",
    "ssdiff-trt build": "generic4",
    "ssdiff-trt contract": "generic4 -o c.json",
    "ssdiff-trt doctor": "",
    "ssdiff-trt report": "out.tif --pan pan.tif --ms ms.tif",
    "ssdiff-export": "--weights w.pt --sensor qb -o b.ssdiff",
    "ssdiff-calibrate collect": f"{RASTERS} -o s.npz --no-picture",
    "ssdiff-calibrate sensitivity": "s.npz",
    "ssdiff-ref simulate": f"{RASTERS} -o out",
    "ssdiff-ref fuse": f"{RASTERS} --method gsa -o out.tif",
    "ssdiff-ref evaluate": f"{RASTERS} --sensor qb",
    "ssdiff-ref train": "c.toml -o run",
    "ssdiff-ref finetune": "c.toml --weights w.pt -o run",
    "ssdiff-ref pack": "c.toml -o p.npz",
    "ssdiff-ref adapt": f"{RASTERS} -o b.ssdiff",
}
"""A line for each command that lacks nothing but its files."""


def test_the_list_of_commands_is_complete():
    assert set(VALID) == {name for name, _ in commands()}


OF_BUNDLES = {
    f"ssdiff-trt {name}" for name in ("info", "bench", "verify", "build", "contract", "doctor")
}
"""Commands that need no files but a bundle."""
OF_FILES = sorted(set(VALID) - OF_BUNDLES)


def first(command, kind):
    """The first option of a kind."""
    for param in command.params:
        if not isinstance(param, click.Option) or param.multiple:
            continue
        name = max(param.opts, key=len).lstrip("-")
        if kind == "choice" and isinstance(param.type, click.Choice):
            return name
        if kind == "number" and param.type in (click.INT, click.FLOAT):
            return name
        if kind == "value" and not param.is_flag:
            return name
    return None


def wrong_lines():
    """Every command with each mistake that its options allow."""
    lines = []
    for name, command in commands():
        lines.append((name, "--colour red", None))
        for kind, value in (("value", ""), ("choice", "nonsense"), ("number", "many")):
            if option := first(command, kind):
                lines.append((name, f"--{option} {value}", option if value else None))
    return lines


@pytest.mark.parametrize(("name", "words", "option"), wrong_lines())
def test_a_mistake_on_the_command_line_is_one_line(type_in, name, words, option):
    status, out, err = type_in(f"{name} {VALID[name]} {words}")
    assert (status, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    if option:
        assert f"Invalid value for '--{option}'" in err


@pytest.mark.parametrize("name", OF_FILES)
def test_a_missing_file_is_one_line_and_leaves_nothing(type_in, tmp_path, name):
    status, out, err = type_in(f"{name} {VALID[name]}")
    assert (status, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert re.search(r"pan\.tif|c\.toml|w\.pt|s\.npz", err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OF_FILES)
def test_a_file_of_garbage_is_one_line_and_leaves_nothing(type_in, tmp_path, name):
    files = ("pan.tif", "ms.tif", "c.toml", "w.pt", "s.npz")
    for file in files:
        (tmp_path / file).write_bytes(b"\x00garbage = [\xff")
    status, out, err = type_in(f"{name} {VALID[name]}")
    assert (status, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == set(files)


@pytest.mark.parametrize("threads", ["0", "-1", "abc", "1.5"])
@pytest.mark.parametrize(
    "name",
    [name for name, command in commands() if any(p.name == "threads" for p in command.params)],
)
def test_a_wrong_number_of_threads_is_one_line(type_in, make_pair, name, threads):
    if not name.startswith("ssdiff-ref train"):
        make_pair()
    status, out, err = type_in(f"{name} {VALID[name]} --threads {threads}")
    assert (status, out) == (2, "")
    assert "threads" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("odd", ["n" * 300, "n\udcff"], ids=["too long", "not UTF-8"])
@pytest.mark.parametrize("name", OF_FILES)
def test_a_name_that_no_file_can_have_is_one_line(type_in, make_pair, tmp_path, name, odd):
    make_pair()
    words = VALID[name].split()
    for index, word in enumerate(words):
        if not word.endswith((".tif", ".toml", ".pt", ".npz")):
            continue
        line = " ".join([*words[:index], f"{odd}{word}", *words[index + 1 :]])
        status, out, err = type_in(f"{name} {line}")
        assert (status, out, err.count("\n")) == (2, "", 1), line
    assert {path.name for path in tmp_path.iterdir()} == {"pan.tif", "ms.tif"}


@pytest.mark.parametrize(
    "variables",
    [
        {"HOME": None},
        {"HOME": ""},
        {"HOME": "/nonexistent"},
        {"HOME": "/dev/null"},
        {"HOME": "n" * 300},
        {"XDG_CACHE_HOME": "here", "XDG_CONFIG_HOME": "here"},
        {"SSDIFF_CACHE": "/dev/null"},
        {"SSDIFF_CACHE": "pan.tif"},
        {"SSDIFF_CACHE": "n" * 300, "SSDIFF_CONFIG": "n" * 300},
    ],
)
def test_no_home_and_no_cache_are_needed(type_in, make_pair, monkeypatch, tmp_path, variables):
    def unknown(uid):
        raise KeyError(uid)

    make_pair(32, 32)
    (tmp_path / "here/ssdiff-trt").mkdir(parents=True)
    (tmp_path / "here/ssdiff-trt/config.toml").write_text("not read, as XDG paths are absolute")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("SSDIFF_CONFIG", "SSDIFF_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    status, out, err = type_in("ssdiff-trt info generic4")
    assert (status, "blue, green, red, nir" in out, err) == (0, True, "")
    status, _, err = type_in("ssdiff-trt run pan.tif ms.tif -o out.tif --steps 1 --shift none")
    assert (status, "out.tif: 32 x 32" in err) == (0, True)


def test_no_command_names_a_flag_of_the_library(type_in, make_pair):
    make_pair()
    status, _, err = type_in("ssdiff-trt run pan.tif ms.tif --full-scale -1")
    assert status == 2
    assert err == (
        "Error: Invalid value for '--full-scale': A full scale of -1 does not work; give a number "
        "above 0.\n"
    )
    _, _, err = type_in("ssdiff-trt run ms.tif ms.tif")
    assert "`" not in err


@pytest.mark.parametrize(("name", "command"), commands())
def test_help_has_full_phrases_and_an_example(name, command):
    assert name in command.epilog
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, param.name
            assert param.help.endswith("."), param.help
            assert not param.help.startswith(("Of ", "That ", "What ", "As ")), param.help
            assert not re.search(r"\b(anew|likewise|so many|tells?|told|there\.$)", param.help)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_tells_its_version(type_in, program):
    status, out, _ = type_in(f"{program} --version")
    assert status == 0
    assert re.search(r"version \d+\.\d+\.\d+", out)


def test_json_goes_to_a_file_or_to_standard_output(type_in, tmp_path):
    _, out, _ = type_in("ssdiff-trt info generic4 --json -")
    assert json.loads(out)["name"] == "generic4"
    _, out, _ = type_in("ssdiff-trt info generic4 --json deep/er/info.json")
    assert "blue, green, red, nir" in out
    assert json.loads((tmp_path / "deep/er/info.json").read_text())["name"] == "generic4"


@pytest.mark.parametrize(
    ("text", "seed"),
    [
        ("", 0),
        ("[ssdiff-trt.run]\nseed = 5\n", 5),
        ("[ssdiff-ref.adapt]\nseed = 5\n", 0),
        ("[ssdiff-trt.run]\nseed = 5\nco = ['COMPRESS=ZSTD', 'TILED=YES']\nb = [4, 'red']\n", 5),
    ],
)
def test_a_configuration_file_and_variables_give_defaults(
    type_in, make_pair, monkeypatch, tmp_path, text, seed
):
    taken = {}

    def plan(self, *paths, **options):
        taken.update(options)
        raise click.exceptions.Exit(0)

    monkeypatch.setattr("ssdiff_trt.runtime.pansharpener.Pansharpener.plan", plan)
    (tmp_path / "c.toml").write_text(text)
    monkeypatch.setenv("SSDIFF_CONFIG", "c.toml")
    assert type_in("ssdiff-trt run a.tif b.tif")[0] == 0
    assert taken["seed"] == seed
    if "co =" in text:
        assert taken["creation_options"] == {"COMPRESS": "ZSTD", "TILED": "YES"}
        assert taken["bands"] == (4, "red")
    monkeypatch.setenv("SSDIFF_RUN_SEED", "6")
    assert type_in("ssdiff-trt run a.tif b.tif")[0] == 0
    assert taken["seed"] == 6
    assert type_in("ssdiff-trt run a.tif b.tif --seed 7")[0] == 0
    assert taken["seed"] == 7


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = = 1", "c.toml is not valid TOML"),
        ("[ssdiff-trt.run]\nfullscale = 1", "[ssdiff-trt.run] of the configuration c.toml has "),
        ("[ssdiff-trt.walk]\nseed = 1", "[ssdiff-trt] of the configuration c.toml has 'walk'"),
        ("ssdiff-trt = 1", "[ssdiff-trt] of the configuration c.toml is not a table"),
        ("ssdiff-trt.run = 1", "[ssdiff-trt.run] of the configuration c.toml is not a table"),
        ("[ssdiff-trt.run]\nseed = 'x'", "Invalid value for '--seed'"),
    ],
)
def test_a_wrong_configuration_is_one_line(type_in, monkeypatch, tmp_path, text, sentence):
    (tmp_path / "c.toml").write_text(text)
    monkeypatch.setenv("SSDIFF_CONFIG", "c.toml")
    status, _, err = type_in("ssdiff-trt run a.tif b.tif")
    assert status == 2
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        ("ssdiff-trt info gen", ["plain,generic4", "plain,generic8", "dir,gen"]),
        ("ssdiff-trt run a b --bundle d", ["plain,default", "dir,d"]),
        ("ssdiff-trt run p", ["file,p"]),
        ("ssdiff-trt run a b --sampler c", ["plain,consistent"]),
        ("ssdiff-export --weights w", ["file,w"]),
        ("ssdiff-ref finetune c --weights g", ["plain,generic4", "plain,generic8", "file,g"]),
    ],
)
def test_the_shell_completes_files_bundles_and_choices(type_in, monkeypatch, words, offers):
    program = words.split()[0]
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    monkeypatch.setenv(variable, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    _, out, _ = type_in(program)
    assert out.splitlines() == offers


def test_messages_of_gdal_that_are_not_utf8_are_not_shown_and_others_are(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "__unraisablehook__", shown.append)
    kinds = UnicodeDecodeError("utf-8", b"\xa8", 0, 1, "invalid start byte"), OSError("disk")
    for error in kinds:
        show_unraisable(SimpleNamespace(exc_value=error))
    assert [raised.exc_value for raised in shown] == [kinds[1]]
