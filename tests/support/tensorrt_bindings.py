"""TensorRT's own Python bindings on stub libraries, which are enough to import them.

``make test-bindings`` puts the bindings into ``build/bindings/VERSION``. They are imported in a
process of their own, which describes names of them:

    python -m tests.support.tensorrt_bindings MODULE [FOLDER] < names.json > docstrings.json
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDERS = Path(__file__).parents[2] / "build" / "bindings"
FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL"),
    *("getBuilderPluginRegistry", "getPluginRegistry", "getNvOnnxParserVersion"),
    "initLibNvInferPlugins",
)
"""Functions of TensorRT's libraries that the bindings ask for."""


def load_stubs(major):
    """Load libraries with the names of TensorRT's, whose functions do nothing."""
    source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS)
    with TemporaryDirectory() as folder:
        for library in ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin"):
            path = f"{folder}/{library}.so.{major}"
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{Path(path).name}", "-x", "c", "-"]
            subprocess.run([*command, "-o", path], input=source, text=True, check=True)
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def describe(module, name):
    """Docstring of what a dotted name stands for, or None if there is no such thing."""
    for part in name.split("."):
        if not hasattr(module, part):
            return None
        module = getattr(module, part)
    return module.__doc__ or ""


def docstrings(names, module, folder=None):
    """Docstrings by name, of bindings in a folder or of an installed package; None if missing."""
    command = [sys.executable, "-m", __name__, module, *([str(folder)] if folder else [])]
    given = {"input": json.dumps(sorted(names)), "cwd": Path(__file__).parents[2]}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **given)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def main():
    module, *folder = sys.argv[1:]
    if folder:
        sys.path.insert(0, folder[0])
        load_stubs(Path(folder[0]).name.partition(".")[0])
    imported = import_module(module)
    print(json.dumps({name: describe(imported, name) for name in json.load(sys.stdin)}))


if __name__ == "__main__":
    main()
