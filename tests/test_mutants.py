"""The mutation check changes what it should, and its list of equivalent mutants is current."""

from __future__ import annotations

import json

import pytest

from tests import mutants

SOURCE = """\
@cache
def f(a: int | None, b: float = 2) -> int | str:
    if not a < b and a is None:
        raise ValueError(f"{a + 1}")
    return g(a - 1, key=range(b)) if True else None
"""
AFTERS = [
    "def f(a: int | None, b: float = (3)) -> int | str:",
    "def f(a: int | None, b: float = (1)) -> int | str:",
    "if (not a < b or a is None):",
    "if (a < b) and a is None:",
    "if not (a <= b) and a is None:",
    "if not a < b and (a is not None):",
    "return None",
    "return (g(a - 1, key=range(b)) if not True else None)",
    "return g(a - 1, key=range(b)) if False else None",
    "return (g(a - 1)) if True else None",
    "return g((a + 1), key=range(b)) if True else None",
    "return g(a - (2), key=range(b)) if True else None",
    "return g(a - (0), key=range(b)) if True else None",
    "return g(a - 1, key=(range(b - 1))) if True else None",
]


def test_every_kind_of_change_is_made_once_and_not_in_annotations_or_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "m.py").write_text(SOURCE)
    found = list(mutants.mutants(tmp_path / "m.py"))
    assert sorted(mutant.after for mutant in found) == sorted(AFTERS)
    for mutant in found:
        compile(mutant.source, "m.py", "exec")
        lines = mutant.source.splitlines()
        assert lines[mutant.line - 1].strip() == mutant.after
        changed = [k for k, line in enumerate(SOURCE.splitlines()) if lines[k] != line]
        assert changed == [mutant.line - 1]
        assert str(mutant).startswith(f"m.py:{mutant.line}\n    -")


@pytest.mark.parametrize(
    ("module", "first", "others"),
    [
        ("runtime/schedule.py", "test_schedule.py", {"tests/runtime/backends/test_guard.py"}),
        ("runtime/tiles/noise.py", "tiles/test_noise.py", set()),
        ("runtime/raster/checks.py", "test_survey.py", {"tests/runtime/raster/test_holes.py"}),
    ],
)
def test_the_tests_of_a_module_begin_with_its_own(module, first, others):
    files = mutants.tests_of(module)
    assert files[0].endswith(first)
    assert others <= set(files)


def test_every_mutant_that_is_called_equivalent_exists_and_has_a_reason():
    for file, reasons in json.loads(mutants.EQUIVALENT.read_text(encoding="utf-8")).items():
        afters = {mutant.after for mutant in mutants.mutants(mutants.ROOT / file)}
        assert reasons.keys() <= afters
        assert all(len(reason) > 10 for reason in reasons.values())


def test_every_pattern_of_modules_names_some():
    assert all(list(mutants.ROOT.glob(pattern)) for pattern in mutants.DECIDE)
