"""Printing what ``ssdiff-trt doctor`` found."""

from __future__ import annotations

from rich.table import Table

from ssdiff_trt.runtime.doctor import Diagnosis
from ssdiff_trt.runtime.progress import print_text


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print a diagnosis on standard output: a row for each finding, and the verdict."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in diagnosis.findings:
        remedy = f"\n-> {finding.remedy}" if finding.remedy else ""
        table.add_row(finding.state, finding.what, f"{finding.found}{remedy}")
    print_text(table)
    print_text(
        "This machine can run ssdiff-trt." if diagnosis.usable else "No run will work here yet."
    )
