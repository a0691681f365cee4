#!/bin/sh
# Builds pycuda into a virtual environment, with CUDA's headers from PyPI and the stand-in driver:
#
#     build_pycuda.sh VENV
set -eu

python=$1/bin/python
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
"$python" -m pip install --quiet --only-binary :all: "nvidia-cuda-runtime>=13,<14" \
    "nvidia-cuda-crt>=13,<14" "nvidia-cuda-profiler-api>=13,<14" "nvidia-curand>=10.4,<11"
cuda=$("$python" -c "import sysconfig; print(sysconfig.get_path('purelib') + '/nvidia/cu13')")

# A folder as CUDA's own installation has it, which pycuda finds by its compiler. Nothing compiles
# kernels here.
mkdir "$root/bin" "$root/lib64"
printf '#!/bin/sh\n' > "$root/bin/nvcc"
chmod +x "$root/bin/nvcc"
ln -s "$cuda/include" "$root/include"
for library in curand cudart; do
    ln -s "$cuda"/lib/lib$library.so.* "$root/lib64/lib$library.so"
done
"$python" -m tests.support.driver "$root/lib64"
ln -s libcuda.so.1 "$root/lib64/libcuda.so"

# Not optimised, which halves the time.
PATH="$root/bin:$PATH" CXXFLAGS="-O0 -g0" LDFLAGS="-Wl,-rpath,$cuda/lib" \
    "$python" -m pip install --quiet --no-cache-dir --no-binary pycuda "pycuda==2026.1"
