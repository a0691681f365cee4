"""Fuzzing of the commands with hostile files, reproducible by kind and seed.

A *kind* is a module of this folder with a function ::

    def make(seed: int, folder: Path) -> list[str]:

It writes the files of one case into ``folder``, which is empty and the working directory of the
command, and returns the command line, program first (``["ssdiff-ref", "fuse", "pan.tif", ...]``).
Paths in it are relative to ``folder``. A case depends on its seed alone, and stops early or takes
less than a second where the files are still valid. ``config.toml`` in ``folder`` is the user's
configuration, ``cache`` the user's cache. ``tests/fuzz/mutation.py`` has helpers.

::

    python -m tests.fuzz.harness --cases 3000                 spread over all kinds
    python -m tests.fuzz.harness --cases 500 --kinds rasters --first 1000
    python -m tests.fuzz.harness --show rasters 17            what one case does; its files are kept

Each case is a process of its own, forked after the heavy imports, with a limit on time, memory and
the size of files. It passes if

- the exit status is 0, 1 or 2, and there is no traceback;
- with status 2, the last line of standard error, and no other one, begins with ``Error: `` (or is
  the JSON of an error);
- with status 1 or 2, no file appeared or changed;
- no temporary folder is left, and nothing was written outside ``folder``.

``seeds.json`` has the seeds of cases that failed once, by kind; ``test_fuzz.py`` runs them all.
"""

from __future__ import annotations

import argparse
import atexit
import json
import multiprocessing
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
SEEDS = HERE / "seeds.json"
SECONDS = 10
"""Longest time of a case."""
MEMORY, FILE_SIZE = 4 << 30, 1 << 28
"""Most bytes that a case may add to the address space, and write to one file."""
PROGRAMS = {
    "ssdiff-trt": "ssdiff_trt.cli.trt",
    "ssdiff-export": "ssdiff_trt.cli.export",
    "ssdiff-ref": "ssdiff_trt.cli.ref",
    "ssdiff-calibrate": "ssdiff_trt.cli.calibrate",
}
HEAVY = (
    *PROGRAMS.values(),
    "ssdiff_ref.classical.fusion",
    "ssdiff_ref.evaluation.evaluate",
    "ssdiff_ref.training.run",
    "ssdiff_trt.calibration.collection",
    "ssdiff_trt.calibration.report",
    "ssdiff_trt.cli.info",
    "ssdiff_trt.export.command",
    "ssdiff_trt.runtime.backends.onnxruntime",
    "ssdiff_trt.runtime.benchmark.rounds",
    "ssdiff_trt.runtime.benchmark.tables",
    "ssdiff_trt.runtime.backends.tensorrt.opening",
    "ssdiff_trt.runtime.pansharpener",
    "ssdiff_trt.runtime.parity.verification",
    "onnx",
    "onnxruntime",
    "safetensors.numpy",
)
"""What is imported once for all cases."""

_JSON_ERROR = '"level": "error"'
"""In the line of an error with ``--progress json``."""
Case = tuple[str, int]
"""Kind and seed."""


@dataclass(frozen=True)
class Outcome:
    """What one case did."""

    kind: str
    seed: int
    words: list[str]
    fault: str
    """Why it fails; empty if it passes."""
    status: int
    """Exit status; the negative number of the signal that ended it."""
    errors: str
    """Standard error."""
    seconds: float
    mebibytes: float
    """Growth of the resident memory."""


def kinds() -> dict[str, Callable[[int, Path], list[str]]]:
    """Function that makes a case, by kind."""
    modules = {
        name: import_module(f"tests.fuzz.{name}")
        for _, name, _ in pkgutil.iter_modules([str(HERE)])
        if name != "harness" and not name.startswith("test_")
    }
    return {name: module.make for name, module in modules.items() if hasattr(module, "make")}


def run_case(kind: str, seed: int, base: Path) -> Outcome:
    """Make a case in ``base``, an empty folder, run it and judge it."""
    folder, outside = base / "folder", base / "outside"
    folder.mkdir()
    outside.mkdir()
    try:
        words = kinds()[kind](seed, folder)
    except Exception as error:
        return Outcome(kind, seed, [], f"cannot be made: {error!r}", 99, "", 0, 0)
    before = _contents(folder)
    began, own = time.monotonic(), _resident()
    child = os.fork()
    if not child:
        _command(words, folder, outside)
    _, state, usage = os.wait4(child, 0)
    seconds, grown = time.monotonic() - began, usage.ru_maxrss / 1024 - own
    if left_behind := _group_ended(child):
        os.killpg(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(state)
    errors = (base / "stderr").read_bytes().decode(errors="backslashreplace")
    fault = "a process is left" if left_behind else ""
    fault = fault or _fault(
        status, [line for line in errors.splitlines() if line.strip()], before, _contents(folder)
    )
    if not fault and (strange := sorted(os.listdir(outside))):
        fault = f"left in the system's temporary folder: {strange[0]}"
    if not fault and {"folder", "outside", "stdout", "stderr"} != set(os.listdir(base)):
        fault = f"written outside the folder: {os.listdir(base)}"
    return Outcome(kind, seed, words, fault, status, errors, seconds, max(0, grown))


def _group_ended(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _resident() -> float:
    """MiB of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Kind, size and time of change of everything in a folder, except in the user's cache."""
    found = {}
    for place, folders, files in os.walk(folder):
        if Path(place) == folder and "cache" in folders:
            folders.remove("cache")
        for name in folders + files:
            path = os.path.join(place, name)
            stat = os.lstat(path)
            kept = (
                (stat.st_mode, 0, 0)
                if name in folders
                else (stat.st_mode, stat.st_size, stat.st_mtime_ns)
            )
            found[os.path.relpath(path, folder)] = kept
    return found


def _fault(
    status: int,
    errors: Sequence[str],
    before: dict[str, tuple[int, int, int]],
    after: dict[str, tuple[int, int, int]],
) -> str:
    """Why a case fails; empty if it passes."""
    last = errors[-1] if errors else ""
    if status == -signal.SIGALRM:
        return f"takes longer than {SECONDS} s"
    if any(line.startswith("Traceback") for line in errors):
        return f"traceback: {last}"
    if status not in (0, 1, 2):
        return f"status {status}: {last}"
    stated = [line for line in errors if line.startswith("Error: ") or _JSON_ERROR in line]
    if status == 2 and stated != [last] and not "".join(errors[:1]).startswith("Usage: "):
        return f"status 2 without one line that says why: {last}"
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    if changed and status:
        return f"status {status}, but written or changed: {changed[0]}"
    if hidden := [name for name in changed if name in after and Path(name).name.startswith(".")]:
        return f"left: {hidden[0]}"
    return ""


def _command(words: list[str], folder: Path, outside: Path) -> None:
    """Become the command; never returns."""
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder.parent / name, os.O_CREAT | os.O_WRONLY), number)
        os.dup2(os.pipe()[0], 0)  # silent and never at its end, so that who reads it waits
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        tempfile.tempdir = None
        settings = {"SSDIFF_CONFIG": folder / "config.toml", "SSDIFF_CACHE": folder / "cache"}
        settings |= {"TMPDIR": outside, "HOME": folder / "cache"}
        os.environ.update({name: str(path) for name, path in settings.items()})
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        atexit._clear()
        sys.argv = words
        status = _exit_status(import_module(PROGRAMS[words[0]]).main)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    finally:
        os._exit(99)


def _exit_status(main: Callable[[], None]) -> int:
    """Exit status of a program as the interpreter would give it."""
    try:
        main()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _in_scratch(case: Case) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as base:
        return run_case(*case, Path(base))


def run_cases(cases: Sequence[Case], jobs: int) -> Iterator[Outcome]:
    """Outcomes of cases as they come, from so many at a time."""
    for name in HEAVY:
        import_module(name)
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(_in_scratch, cases)


def spread(count: int, names: Sequence[str], first: int = 0) -> list[Case]:
    """So many cases, as many of each kind."""
    return [(names[index % len(names)], first + index // len(names)) for index in range(count)]


def known(names: Sequence[str]) -> list[Case]:
    """Cases that failed once."""
    seeds = json.loads(SEEDS.read_text())
    return [(kind, seed) for kind in names for seed in seeds.get(kind, ())]


def report(outcomes: Sequence[Outcome]) -> None:
    """Print counts by kind, the slowest and the largest case."""
    for kind in sorted({one.kind for one in outcomes}):
        own = [one for one in outcomes if one.kind == kind]
        refused, done = (sum(one.status == status for one in own) for status in (2, 0))
        slow = max(own, key=lambda one: one.seconds)
        large = max(own, key=lambda one: one.mebibytes)
        print(
            f"{kind:12}{len(own):6} cases, {refused} refused, {done} done, "
            f"{sum(bool(one.fault) for one in own)} failed; slowest {slow.seconds:.1f} s "
            f"(seed {slow.seed}), largest {large.mebibytes:.0f} MiB (seed {large.seed})"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the commands with hostile files.")
    parser.add_argument("--cases", type=int, default=3000, help="number of cases")
    parser.add_argument("--kinds", default="", help="kinds with commas between; default: all")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--show", nargs=2, metavar=("KIND", "SEED"), help="one case in detail")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    if given.show:
        base = Path(tempfile.mkdtemp(prefix="fuzz-"))
        one = run_case(given.show[0], int(given.show[1]), base)
        if one.words:
            printed = (base / "stdout").read_text(errors="replace")
            print(one.words, base, printed, one.errors, sep="\n")
        print(f"status {one.status}, {one.seconds:.1f} s; {one.fault or 'passes'}")
        return bool(one.fault)
    names = given.kinds.split(",") if given.kinds else list(kinds())
    cases = dict.fromkeys([*known(names), *spread(given.cases, names, given.first)])
    outcomes = []
    for one in run_cases(list(cases), given.jobs):
        outcomes.append(one)
        if one.fault:
            print(f"FAILED {one.kind} {one.seed}: {one.fault[:300]}", flush=True)
    report(outcomes)
    return any(one.fault for one in outcomes)


if __name__ == "__main__":
    sys.exit(main())
