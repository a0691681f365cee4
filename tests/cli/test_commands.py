"""The commands, as typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import rasterio

from ssdiff_trt.cli.trt import cli
from ssdiff_trt.runtime.options import (
    BACKENDS,
    DRIVERS,
    DTYPES,
    GEOREFERENCING,
    PRECISIONS,
    SAMPLERS,
    ZERO_BANDS,
)
from ssdiff_trt.runtime.progress import KINDS
from tests.support.commands import call


def test_run_says_what_it_assumed_and_where_the_result_is(make_pair, tmp_path):
    pan, ms = make_pair(100, 120)
    done = call("run", pan, ms, "--batch", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Full scale: PAN 2047 (that of the bundle's sensor, generic)" in done.stderr
    assert "consistent sampler, 1 step at t = 999" in done.stderr
    assert "(100 %), 0 s left" in done.stderr
    with rasterio.open(tmp_path / "ms_pansharpened.tif") as file:
        assert (file.height, file.width) == (100, 120)


def test_options_reach_the_run(make_pair, tmp_path):
    pan, ms = make_pair(80, 80, bands=5)
    words = ["-b", "4,3,2,1", "--timesteps", "900,100", "--seed", "7", "-q"]
    words += ["--co", "COMPRESS=ZSTD", "--dtype", "float32"]
    done = call("run", pan, ms, "-o", "a.tif", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.tags()["SSDIFF_TIMESTEPS"] == "900,100"
        assert file.tags()["SSDIFF_SEED"] == "7"
        assert file.compression.name == "zstd"
        assert file.dtypes[0] == "float32"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "pan.tif", "nothing.tif"], "Error: The MS image cannot be read"),
        (
            ["run", "ms.tif", "pan.tif"],
            "ms.tif has 4 bands; pan.tif has one, so are the two swapped?",
        ),
        (
            ["run", "ms.tif", "pan.tif", "--pan-band", "1"],
            "0.25 pixels of ms.tif, expected 4 x 4, so ",
        ),
        (["run", "pan.tif", "pan.tif"], "Error: A pixel of pan.tif is 1 x 1 pixels of pan.tif"),
        (["run", "pan.tif", "ms.tif", "-b", "1,x"], "ms.tif is named 'x'; the names are: none"),
        (["run", "pan.tif", "ms.tif", "--co", "A"], "'A' is not of the form KEY=VALUE"),
        (["run", "pan.tif", "ms.tif", "--steps", "0"], "0 steps were asked for"),
        (["run", "pan.tif", "ms.tif", "--bundle", "x"], "x is not a bundle"),
        (["run", "pan.tif"], "MS is missing, and pan.tif is not a product"),
        (["sharpen"], "No such command 'sharpen'"),
        (["info", "nothing"], "nothing is not a bundle"),
    ],
)
def test_mistakes_get_one_sentence_and_status_2(make_pair, tmp_path, words, sentence):
    make_pair()
    done = call(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["ms.tif", "pan.tif"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGHUP], 129),
        # until the process is gone: during clean-up, and while the interpreter ends
        ([signal.SIGINT] * 1000, 130),
        ([signal.SIGINT, signal.SIGTERM] * 500, 130),
    ],
)
def test_interruption_leaves_nothing(make_pair, tmp_path, sent, status):
    pan, ms = make_pair(400, 400)
    code = "from ssdiff_trt.cli.trt import main; main()"
    words = [sys.executable, "-c", code, "run", pan, ms, "-o", "out.tif"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("Tiles:"):
                break
        for number in sent:
            process.send_signal(number)  # does nothing once the process has ended
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.001)
        rest = [line for line in process.stderr.read().splitlines() if line]
        assert process.wait(timeout=60) == status
    rest = [line for line in rest if not line.startswith("Tiles:")]
    assert rest == ["Interrupted; what was not complete was not written."] * (status == 130)
    assert sorted(os.listdir(tmp_path)) == ["ms.tif", "pan.tif"]


def test_characters_that_an_encoding_lacks_are_escaped_and_json_is_utf8():
    code = (
        "from ssdiff_trt.runtime.progress import keep_streams; keep_streams()\n"
        "from ssdiff_trt.cli.options import write_json\n"
        r"""print('\xb1 \udcff', flush=True); write_json('["\xfc"]', '-')"""
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    words = [sys.executable, "-X", "utf8=0", "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True)
    assert done.stdout == b'\\xb1 \\udcff\n["\xc3\xbc"]\n', done.stderr


def test_what_nohup_ignores_stays_ignored(tmp_path):
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from ssdiff_trt.cli.process import process\n"
        "with process(): signal.raise_signal(signal.SIGHUP); print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "goes on\n")


def test_an_interruption_that_python_drops_can_be_repeated():
    code = (
        "import signal\nfrom ssdiff_trt.cli.process import process\n"
        "class Dropping:\n    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "with process():\n    Dropping(); print('goes on', flush=True)\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt: print('ends')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\nends\n", "")


FULL = ">/dev/full"


@pytest.mark.parametrize(
    ("words", "streams", "status", "message"),
    [
        ("info generic4", "| head -1", 0, ""),
        ("info generic4", "| true", 0, ""),
        ("info generic4", ">&-", 0, ""),
        ("info generic4", FULL, 2, "Error: Standard output cannot be written to (No space"),
        (
            "info generic4 --json -",
            FULL,
            2,
            "Error: Standard output cannot be written to (No space",
        ),
        ("info generic4 --json -", "| true", 0, ""),
        ("info nothing", "2>&-", 2, ""),
        ("info nothing", f"2{FULL}", 2, ""),
        ("info nothing", "2>&1 | true", 2, ""),
        ("info generic4", "<&- >&- 2>&-", 0, ""),
        ("run pan.tif ms.tif -o o.tif --steps 1", "2>&1 | true", 0, ""),
        ("run pan.tif ms.tif -o o.tif --steps 1", f"2{FULL}", 0, ""),
        ("run pan.tif ms.tif -o o.tif --steps 1", "<&- >&- 2>&-", 0, ""),
        ("run pan.tif ms.tif -o o.tif --steps 1 --json -", "| true", 0, ""),
    ],
)
def test_lost_streams_end_no_command(make_pair, tmp_path, words, streams, status, message):
    make_pair(64, 64)
    command = f"{sys.executable} -c 'from ssdiff_trt.cli.trt import main; main()' {words}"
    line = f"{{ {command}; echo $? > status; }} {streams}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert int((tmp_path / "status").read_text()) == status
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == bool(message) or "run" in words
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (tmp_path / "o.tif").exists() == ("o.tif" in words)


def test_info_tells_a_person_and_a_program(bundle4):
    done = call("info", "generic4")
    assert done.returncode == 0, done.stderr
    for text in (
        "blue, green, red, nir",
        "denoiser.fp32.fused.onnx",
        "On real tiles",
        "each sampling step in fp32, fp16, bf16, within the limits below",
        bundle4.sha256,
    ):
        assert text in done.stdout
    described = f"trained on   {bundle4.manifest.provenance.training_data}"
    assert described in done.stdout.splitlines()  # whole, as this is no terminal
    four, eight = call("info").stdout.splitlines()
    assert four == "generic4: 4 bands (blue, green, red, nir); fp32, fp16, bf16"
    names = "coastal, blue, green, yellow, red, red edge, nir1, nir2"
    assert eight == f"generic8: 8 bands ({names}); fp32, fp16, bf16"
    done = call("info", bundle4.path, "--json", "-")
    assert json.loads(done.stdout)["model"]["bands"] == 4


def test_export_is_refused_before_it_begins(tmp_path):
    pytest.importorskip("torch")
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"nothing")
    begin = time.monotonic()
    done = call(
        "--weights",
        weights,
        "--sensor",
        "wv3",
        "-o",
        tmp_path / "b.ssdiff",
        module="ssdiff_trt.cli.export",
    )
    assert done.returncode == 2
    assert "cannot be read as weights" in done.stderr
    assert time.monotonic() - begin < 60
    assert os.listdir(tmp_path) == ["w.pt"]


@pytest.mark.parametrize(
    "module", ["ssdiff_trt.cli.trt", "ssdiff_trt.cli.export", "ssdiff_trt.cli.ref"]
)
def test_help_loads_nothing_heavy(module):
    """It is the imports that cost time; a list of them does not depend on the machine."""
    heavy = {
        "numpy",
        "torch",
        "onnx",
        "onnxruntime",
        "rasterio",
        "pydantic",
        "rich",
        "matplotlib",
        "scipy",
        "h5py",
    }
    code = (
        f"import sys; sys.argv = ['command', '--help']; from {module} import main\n"
        f"try: main()\nexcept SystemExit: print('LOADED', {heavy!r} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Usage: ssdiff-" in done.stdout
    assert done.stdout.rstrip().endswith("LOADED set()")


def test_choices_on_the_command_line_are_those_of_the_library():
    choices = {
        option.name: tuple(option.type.choices)
        for option in cli.commands["run"].params
        if hasattr(option.type, "choices")
    }
    assert choices == {
        "sampler": SAMPLERS,
        "backend": BACKENDS,
        "precision": PRECISIONS,
        "dtype": DTYPES,
        "driver": DRIVERS,
        "zero_bands": ZERO_BANDS,
        "georeferencing": GEOREFERENCING,
        "progress": ("auto", *KINDS),
    }


@pytest.mark.parametrize("limit", [20_000, 150_000])
def test_a_full_disk_is_told_and_leaves_nothing(make_pair, tmp_path, limit):
    """A limit on the size of files stands in for the disk; early and late blocks fail to arrive."""
    pan, ms = make_pair(400, 400)
    code = (
        "import resource; from ssdiff_trt.cli.trt import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); main()"
    )
    words = [sys.executable, "-c", code, "run", pan, ms, "-o", "out.tif"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "Error: " in done.stderr
    assert "out.tif cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["ms.tif", "pan.tif"]


@pytest.mark.parametrize(
    ("module", "package", "words", "extra"),
    [
        ("ssdiff_trt.cli.ref", "h5py", ["evaluate", "a.h5", "--sensor", "qb"], "evaluate"),
        (
            "ssdiff_trt.cli.export",
            "torch",
            ["--weights", "w", "--sensor", "qb", "-o", "b"],
            "export",
        ),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_get_it(module, package, words, extra):
    code = f"import sys; sys.modules[{package!r}] = None; from {module} import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    expected = f"Error: {package} is not installed; pip install 'ssdiff-trt[{extra}]'.\n"
    assert done.stderr == expected
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("library", "hint"),
    [("libexpat.so.1", ", with apt install libexpat1 on Debian and Ubuntu"), ("libother.so.2", "")],
)
def test_a_missing_library_of_the_system_is_named(library, hint, tmp_path):
    folder = tmp_path / "rasterio"
    folder.mkdir()
    text = f"{library}: cannot open shared object file: No such file or directory"
    (folder / "__init__.py").write_text(f"raise ImportError({text!r}, name='rasterio._base')")
    words = [sys.executable, "-c", "from ssdiff_trt.cli.trt import main; main()", "doctor"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.stderr == (
        f"Error: rasterio needs {library}, which this system lacks; install it{hint}.\n"
    )
    assert done.returncode == 2


@pytest.mark.parametrize(("given", "threads"), [(None, "1"), ("3", "3")])
def test_commands_keep_blas_to_one_thread_unless_told_otherwise(given, threads):
    code = (
        "import os; from ssdiff_trt.cli.process import share_cores_and_memory as share; share(); "
        "print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    environment |= {"OPENBLAS_NUM_THREADS": given} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == threads


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's own setting")
def test_commands_give_large_arrays_back_when_they_are_freed():
    """glibc would keep them once it has seen one: 64 arrays of 4 MB, the last of which stays."""
    code = (
        "import re, numpy as np\n"
        "from ssdiff_trt.cli.process import share_cores_and_memory as share\n"
        "share(); np.ones(1 << 21); arrays = [np.ones(1 << 19) for _ in range(64)]\n"
        "last = arrays.pop(); arrays.clear()\n"
        "print(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 120_000  # kB; 256 MB more if they were kept


def test_a_run_gives_its_result_as_json(make_pair, tmp_path):
    pan, ms = make_pair(64, 64)
    done = call("run", pan, ms, "-o", "deep/er/o.tif", "-q", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["output"] == "deep/er/o.tif"
    assert result["size"] == {"height": 64, "width": 64}
    assert result["full_scale"] == {"pan": 2047, "ms": 2047}
    assert result["counts"]["tiles"] == 9
    assert result["tags"]["SSDIFF_SEED"] == "0"
    assert (tmp_path / "deep/er/o.tif").exists()


@pytest.mark.parametrize("command", ["info", "verify"])
def test_json_replaces_no_file_unasked(bundle4, tmp_path, command):
    precious = tmp_path / "ms.tif"
    precious.write_text("imagery")
    done = call(command, bundle4.path, "--json", precious)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert "exists; give another --json or pass --overwrite" in done.stderr
    assert precious.read_text() == "imagery"


def test_info_replaces_json_when_asked(bundle4, tmp_path):
    old = tmp_path / "info.json"
    old.write_text("old")
    assert call("info", bundle4.path, "--json", old, "--overwrite").returncode == 0
    assert json.loads(old.read_text())["name"]


def test_a_name_that_is_too_long_and_a_device_are_refused(tmp_path, bundle4):
    for name, message in (("a" * 300, "cannot be a file"), ("/dev/null", "is a device or a pipe")):
        done = call("info", bundle4.path, "--json", name, "--overwrite", cwd=tmp_path)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_a_configuration_that_is_no_text_is_told(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe")
    monkeypatch.setenv("SSDIFF_CONFIG", str(path))
    done = call("info")
    assert done.returncode == 2
    assert "cannot be read (it is not UTF-8)" in done.stderr


def test_json_replaces_no_other_file_of_its_command(make_pair, tmp_path):
    pan, ms = make_pair(80, 80)
    before = ms.read_bytes()
    for words in ((ms, "--overwrite"), ("o.tif", "-o", "o.tif")):
        done = call("run", pan, ms, "--json", *words, cwd=tmp_path)
        assert (done.returncode, "is another file of this command" in done.stderr) == (2, True)
    alias = tmp_path / "alias.json"
    alias.symlink_to(ms)
    done = call("run", pan, ms, "--json", alias, "--overwrite", cwd=tmp_path)
    assert (done.returncode, "is one of the inputs" in done.stderr) == (2, True)
    assert ms.read_bytes() == before
    assert not (tmp_path / "o.tif").exists()


def test_verify_refuses_what_run_refuses(bundle4):
    done = call("verify", bundle4.path, "--threads", "0")
    assert done.returncode == 2
    assert "Invalid value for '--threads': 0 does not work" in done.stderr


def test_a_signal_that_a_destructor_swallows_does_not_shut_out_the_next():
    """Python drops what is raised there; later signals are ignored only once one has arrived."""
    code = """
import signal
import click
from ssdiff_trt.cli.main import run
from ssdiff_trt.cli.process import process

class Swallowing:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

@click.command()
def command():
    Swallowing()
    signal.raise_signal(signal.SIGINT)
    print("went on")

with process():
    run(command, "ssdiff-trt")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_pattern_that_the_shell_has_expanded_is_recognised(count, tmp_path):
    done = call("run", "--scenes", *(f"{number}_pan.tif" for number in range(count)), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("Put the patterns of --scenes in quotes.\n")
