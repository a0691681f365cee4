"""Some hostile files of each kind, and all that did harm once; `make fuzz` tries more."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.harness import kinds, run_case
from tests.fuzz.mutation import damaged, replaced

CASES = 200


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")
def test_hostile_files_are_refused_in_one_sentence():
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.harness", "--cases", str(CASES)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", kinds())
def test_a_case_depends_on_its_seed_alone(kind, tmp_path):
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        words = kinds()[kind](3, tmp_path / name)
        files = {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        made.append((words, files))
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("raise KeyError('a')", "traceback: KeyError: 'a'"),
        ("sys.exit(130)", "status 130: "),
        ("print('no', file=sys.stderr); sys.exit(2)", "status 2 without one line"),
        ("open('new', 'w').close(); sys.exit('Error: a')", "status 1, but written or changed: new"),
        ("open('.part', 'w').close()", "left: .part"),
        ("open('../new', 'w').close()", "written outside the folder"),
        ("import tempfile; tempfile.mkdtemp()", "left in the system's temporary folder"),
        ("open('new', 'w').close()", ""),
        ("print('Error: a', file=sys.stderr); sys.exit(2)", ""),
    ],
)
def test_the_harness_sees_what_a_command_does_wrong(script, fault, tmp_path, monkeypatch):
    module = "tests.fuzz.stand_in"
    monkeypatch.setitem(sys.modules, module, type(sys)(module))
    sys.modules[module].main = lambda: exec(script, {"sys": sys, "open": open})
    monkeypatch.setattr("tests.fuzz.harness.PROGRAMS", {"stand-in": module})
    monkeypatch.setattr("tests.fuzz.harness.kinds", lambda: {"any": lambda *_: ["stand-in"]})
    outcome = run_case("any", 0, tmp_path)
    assert outcome.fault.startswith(fault)
    assert bool(outcome.fault) == bool(fault)


def test_damage_is_reproducible_and_changes_something():
    content = os.urandom(5000)
    found = [damaged(content, random.Random(seed)) for seed in range(50)]
    assert found == [damaged(content, random.Random(seed)) for seed in range(50)]
    assert sum(one != content for one in found) > 40
    document = {"a": [1, {"b": 2}]}
    assert sum(repr(replaced(document, random.Random(s))) != repr(document) for s in range(50)) > 40
    assert document == {"a": [1, {"b": 2}]}
