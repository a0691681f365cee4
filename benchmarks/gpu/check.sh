#!/bin/sh
# The GPU check with the PyTorch, TensorRT, ONNX Runtime and numpy that PYTHON has; none of them is
# installed or replaced. In a folder that make gpu-pack wrote, it needs no network.
#
#     PYTHON=python3.12 sh check.sh [--minutes 8] [--again STAGE]
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
if [ -d wheels ]; then
    of=$("$python" -c 'import platform, sys; print("%d.%d" % sys.version_info[:2], platform.machine())')
    [ "$of" = "$(cat wheels/for)" ] || {
        echo "Error: $python is Python $of, expected Python $(cat wheels/for); name one with PYTHON," \
            "or pack again for it." >&2
        exit 2
    }
    set -- -o results "$@"
else
    cd ../..
fi
venv=build/gpu-check
if [ ! -e "$venv/ready" ]; then
    "$python" -m venv --clear --system-site-packages --without-pip "$venv"
    # If PYTHON is that of a venv, its packages are not those of the system.
    "$python" -c 'import sys; print(*(path for path in sys.path if "-packages" in path), sep="\n")' \
        >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/machine.pth"
    pip="$venv/bin/python -m pip install --quiet"
    project="--editable ."
    if [ -d wheels ]; then
        pip="$venv/bin/python $(echo wheels/pip-*.whl)/pip install --quiet --no-index --find-links wheels"
        project=ssdiff-trt
    fi
    $pip --requirement benchmarks/gpu/requirements.txt
    $pip --no-deps $project
    touch "$venv/ready"
fi
exec "$venv/bin/python" -m benchmarks.gpu.check "$@"
