"""Mutation check: does any test fail if a line of the code is wrong?

``make mutants`` makes small changes to the modules that decide pixels, metrics, bundles and
engines, one at a time, each in a copy of the tree, and runs the tests that belong to the module:
the files of the folder that mirrors its own, those that import it and, if none has its name, those
of the folder above. A mutant that passes them all is printed with its difference. Either it shows
what no test checks, or it is equivalent; then ``tests/mutants_equivalent.json`` names it, by file
and changed line, with the reason.

A test that fails anyway would kill every mutant, so ``make test`` comes first. Tests that are
marked slow or use an export (``EXPORTS``) are left out; ``--exports`` includes the latter, without
which nothing tests ``calibration/samples.py`` and ``calibration/ranges.py``.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.json")
DECIDE = (
    *("runtime/interpolator.py", "runtime/schedule.py", "runtime/consistency.py"),
    *("runtime/arrays.py", "runtime/sources.py", "runtime/pansharpen.py", "runtime/sensors.py"),
    *("runtime/tiles/*.py", "runtime/bundle/*.py", "runtime/parity/*.py", "runtime/plan/*.py"),
    *("runtime/raster/*.py", "runtime/backends/*.py", "runtime/backends/tensorrt/*.py"),
    *("ssdiff_ref/quality/*.py", "ssdiff_ref/protocol/*.py", "ssdiff_ref/network/*.py"),
    *("ssdiff_ref/classical/*.py", "ssdiff_ref/training/synthesis.py"),
    *("export/precision.py", "export/parity.py", "export/graph.py", "export/judgement.py"),
    "calibration/quantisation.py",
)
MAPPED = ("runtime", "export", "calibration")
"""Folders that are installed inside ``ssdiff_trt``."""
EXPORTS = {"bundle8", "low4", "samples4", "int8"}
"""Fixtures that export a bundle, which takes minutes."""
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "out", ".*_cache", "__pycache__"
)
KILLED, SURVIVED = "killed", "SURVIVED"

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq},
    **{ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn},
    **{ast.NotIn: ast.In},
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}


def pytest_collection_modifyitems(config, items):
    """Used as a plugin of pytest, this module leaves out tests that use an export."""
    left_out = [item for item in items if EXPORTS & set(item.fixturenames)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


class Mutant(NamedTuple):
    """A module with one change."""

    file: str
    line: int
    before: str
    """Source of the changed lines, without indentation."""
    after: str
    source: str
    """Source of the whole module."""

    def __str__(self) -> str:
        old = (ROOT / self.file).read_text(encoding="utf-8").splitlines()
        difference = difflib.unified_diff(old, self.source.splitlines(), n=0, lineterm="")
        return "\n    ".join([f"{self.file}:{self.line}", *list(difference)[3:]])


def changes(node: ast.AST) -> Iterator[str]:
    """Sources of what may stand in place of a node."""

    def with_(edit) -> str:
        changed = copy.deepcopy(node)
        edit(changed)
        return ast.unparse(changed) if isinstance(node, ast.stmt) else f"({ast.unparse(changed)})"

    match node:
        case ast.Compare(ops=ops):
            for k, op in enumerate(ops):
                yield with_(lambda n, k=k, op=op: n.ops.__setitem__(k, COMPARISONS[type(op)]()))
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield from (f"({value + 1})", f"({value - 1})")
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            yield with_(lambda n: setattr(n, "op", OPERATORS[type(op)]()))
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.BoolOp(op=op):
            other = ast.Or if isinstance(op, ast.And) else ast.And
            yield with_(lambda n: setattr(n, "op", other()))
        case ast.IfExp(test=test):
            yield with_(lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), test)))
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield "return None"
        case ast.Call(func=ast.Name(id="range"), args=args):
            for k in range(min(len(args), 2)):
                edge = ast.BinOp(args[k], ast.Sub(), ast.Constant(1))
                yield with_(lambda n, k=k, edge=edge: n.args.__setitem__(k, edge))
        case ast.Call(args=args, keywords=keywords):
            if len(args) > 1:
                yield with_(lambda n: n.args.pop())
            for k in range(len(keywords)):
                yield with_(lambda n, k=k: n.keywords.pop(k))


def places(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that compute: no annotations, decorators and errors that are raised."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST) and not isinstance(node, ast.JoinedStr | ast.Raise):
                if hasattr(node, "lineno"):
                    yield node
                yield from places(node)


def mutants(path: Path) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    source = path.read_text(encoding="utf-8")
    lines = source.encode().splitlines(keepends=True)
    for node in places(ast.parse(source)):
        first, last = node.lineno - 1, node.end_lineno - 1
        head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
        for change in changes(node):
            changed = b"".join((head, change.encode(), tail))
            whole = b"".join((*lines[:first], changed, *lines[last + 1 :])).decode()
            before, after = (
                " ".join(text.decode().split())
                for text in (b"".join(lines[first : last + 1]), changed)
            )
            yield Mutant(path.relative_to(ROOT).as_posix(), first + 1, before, after, whole)


@cache
def tests_of(file: str) -> tuple[str, ...]:
    """Files of tests that belong to a module, the nearest first."""
    module, tests = Path(file), ROOT / "tests"
    imports = re.compile(rf"\b{re.escape('.'.join(module.with_suffix('').parts))}\b")
    folder = tests / module.parent
    every = sorted((tests / module.parts[0]).rglob("test_*.py"))
    own = [path for path in every if path == folder / f"test_{module.stem}.py"]
    found = own + [path for path in every if imports.search(path.read_text(encoding="utf-8"))]
    folders = [folder] if own or folder.parent == tests else [folder, folder.parent]
    found += [path for where in folders for path in every if path.parent == where]
    return tuple(dict.fromkeys(path.relative_to(ROOT).as_posix() for path in found))


def run_tests(tree: Path, files: tuple[str, ...], exports: bool, limit: float) -> str:
    """What tests say of a mutant in a copy of the tree."""
    command = [sys.executable, "-m", "pytest", "-qx", "-m", "not slow", "-p", "no:cacheprovider"]
    command += [] if exports else ["-p", "tests.mutants"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["OMP_NUM_THREADS"] = "1"  # jobs are run side by side instead
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        done = subprocess.run([*command, *files], cwd=tree, env=environment, timeout=limit, **quiet)
    except subprocess.TimeoutExpired:
        return "out of time"  # an endless loop, or a slow machine
    return SURVIVED if done.returncode in (0, 5) else KILLED  # 5: there are no tests


class Trees:
    """Copies of the tree, one for each job."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.free = queue.SimpleQueue[Path]()
        for job in range(jobs):
            tree = folder / str(job)
            shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
            for name in MAPPED:  # as installed, so that the copy is imported
                (tree / "ssdiff_trt" / name).symlink_to(tree / name)
            self.free.put(tree)

    def outcome(self, mutant: Mutant, exports: bool, limit: float) -> str:
        """What the tests of its module say of a mutant."""
        tree = self.free.get()
        module = tree / mutant.file
        original = module.read_bytes()
        try:
            module.write_text(mutant.source, encoding="utf-8")
            return run_tests(tree, tests_of(mutant.file), exports, limit)
        finally:
            module.write_bytes(original)
            self.free.put(tree)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", default=DECIDE, help="files to change, or patterns")
    parser.add_argument("--sample", type=int, default=40, help="number of mutants; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--exports", action="store_true", help="also run tests that use an export")
    parser.add_argument("--limit", type=float, default=300, help="seconds for each mutant")
    given = parser.parse_args()
    equivalent = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    files = sorted({path for pattern in given.modules for path in ROOT.glob(pattern)})
    every = [
        mutant
        for path in files
        for mutant in mutants(path)
        if mutant.after not in equivalent.get(mutant.file, {})
    ]
    chosen = every
    if 0 < given.sample < len(every):
        chosen = sorted(random.Random(given.seed).sample(every, given.sample))
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as pool:
        trees = Trees(Path(folder), given.jobs)
        found = pool.map(lambda m: trees.outcome(m, given.exports, given.limit), chosen)
        for number, (mutant, outcome) in enumerate(zip(chosen, found, strict=True), 1):
            outcomes[outcome] += 1
            what = f"{mutant.file}:{mutant.line}" if outcome == KILLED else mutant
            print(f"{number}/{len(chosen)} {outcome}: {what}", flush=True)
    print(f"Of {len(every)} mutants: {', '.join(f'{n} {what}' for what, n in outcomes.items())}")
    return bool(outcomes[SURVIVED])


if __name__ == "__main__":
    sys.exit(main())
