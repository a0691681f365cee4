"""What commands print on standard output."""

from __future__ import annotations

from rich.table import Table

from ssdiff_trt.runtime.progress import tell

LONG = "many words " * 30 + "x" * 200


def lines(capsys):
    table = Table("name", "value", title=LONG)
    table.add_row("a", LONG)
    tell(table, f"[x] {LONG}")
    return capsys.readouterr().out.splitlines()


def test_output_that_is_piped_is_neither_wrapped_nor_cut(capsys):
    printed = lines(capsys)
    assert printed[0] == LONG
    assert sum(LONG in line for line in printed) == 3
    assert printed[-1] == f"[x] {LONG}"
    assert not [line for line in printed if line.endswith(" ")]


def test_output_on_a_terminal_fits_it(become_terminal, capsys):
    become_terminal()
    printed = lines(capsys)
    assert max(map(len, printed)) == 80
