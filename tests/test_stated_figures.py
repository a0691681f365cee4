"""Figures in the sentences of documents are those that scripts wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from statistics import mean

import pytest

from benchmarks import work
from tests.support.figures import NUMBER, comes_from, manifest, page_of, report
from tests.support.stated import (
    LARGE,
    LARGE_TWO,
    ONE,
    STEPS,
    behind,
    beside,
    better,
    consistency,
    cost_of_less_overlap,
    country,
    error_ratios,
    far_off,
    floors,
    gains_in_speed,
    in_bench,
    in_memory,
    mean_of_part,
    more,
    most_speed,
    multiples_of_rounding,
    network_gb,
    of_a_second_step,
    of_adaptation,
    of_country,
    of_int8,
    of_large_tiles,
    of_one_step,
    of_released,
    of_requests,
    of_ten_steps,
    of_uncertainty,
    packages,
    parity,
    rates,
    scenes_of_weights,
    share,
    side,
    surest_tenth,
    tiles,
    training,
    truer,
)

DEFAULT = "ONNX Runtime, FP32 (default)"
NETWORK, REST = "s a Mpixel, two cores, BF16", "s a Mpixel, everything but the network"
STATED: list[tuple[str, str, Callable[[], Iterable[float]]]] = [
    (
        "README",
        "in ERGAS they are # % worse than the best classical method on one of WorldView-3",
        lambda: [behind("quality", "WorldView-3, 8 bands", "ssdiff:generic8")],
    ),
    (
        "README",
        "and # % better than MTF-GLP-FS on one of WorldView-2",
        lambda: [
            -more(*(beside("beside8", method, "ERGAS") for method in (DEFAULT, "MTF-GLP-FS")))
        ],
    ),
    (
        "README",
        "take # seconds for a million pixels of PAN and four bands, and # and # seconds for",
        lambda: [
            beside("beside", method)
            for method in ("ONNX Runtime, FP32 (default)", "MTF-GLP-FS", "GSA")
        ],
    ),
    ("README", "`make demo` took # seconds", lambda: [report("newcomer")["seconds"]["make demo"]]),
    (
        "quickstart",
        "the installation took # seconds and the first run of the README, on its example, #",
        lambda: [report("newcomer")["seconds"][step] for step in ("install", "run")],
    ),
    (
        "scale",
        "on a small scene they took # s a Mpixel",
        lambda: [beside("beside8", "OpenVINO, BF16")],
    ),
    (
        "README",
        "SSDiff has the lower ERGAS on # of #.",
        lambda: [better("ERGAS"), len(scenes_of_weights())],
    ),
    ("README", "than the classical method MTF-GLP-FS on # of # pairs", truer),
    ("adaptation", "has # blocks for the verdict. R-ERGAS is # % worse there", of_adaptation),
    ("concepts", "change ERGAS by # % at most", lambda: [max(map(abs, of_ten_steps(0)))]),
    (
        "guarantees",
        "it peaks at #, #, # and # MB for #, #, # and # pixels",
        lambda: in_memory("peak_mb") + in_memory("size"),
    ),
    ("guarantees", "takes # GB with ONNX Runtime and # GB with OpenVINO", network_gb),
    (
        "int8",
        "(# tiles; # held out for the final score): # groups are in INT8,",
        lambda: of_int8()[:3],
    ),
    ("int8", "ERGAS #%, SAM #%, # dB to FP32.", lambda: of_int8()[3:]),
    (
        "model",
        "largest magnitude on real trajectories is therefore #,",
        lambda: [manifest("generic4")["lowering"][0]["largest"]],
    ),
    ("model", "bundles are off by # to # times,", multiples_of_rounding),
    (
        "model",
        "that of interpolated MS: # and # for `generic4`",
        lambda: manifest("generic4")["judged"].values(),
    ),
    ("model", "| fp16 | #e-5 | # dB | #e-5 | # dB |", lambda: parity("fp16", 1e5)),
    ("model", "| bf16 | #e-4 | # dB | #e-4 | # dB |", lambda: parity("bf16", 1e4)),
    ("performance", "ONNX Runtime #, OpenVINO # and PyTorch #, in FP32", packages),
    (
        "performance",
        "is # GFLOP. On the first machine large matrix products reach # GFLOP/s in FP32 and # in",
        lambda: [report("work")["GFLOP"], *rates("performance").values()],
    ),
    ("performance", "a step would take # and # ms; on B", lambda: floors("performance")),
    ("performance", "on B it would take # and # ms.", lambda: floors("performance-second")),
    (
        "performance",
        "computes products in BF16 at # times the rate of the first",
        lambda: [rates("performance-second")["bf16"] / rates("performance")["bf16"]],
    ),
    ("performance", "more than # times as fast", lambda: [most_speed("performance")]),
    ("performance", "more than # times as fast", lambda: [most_speed("performance-second")]),
    (
        "performance",
        "attention between pixels is # % of the time",
        lambda: [share(report("performance")["operators_ms"], "attention between pixels")],
    ),
    (
        "performance",
        "which is # % of its time in BF16, and # % with tiles of 64",
        lambda: [
            share(report(name)["openvino_operators_ms"]["bf16"], "Subgraph")
            for name in ("performance", "performance64")
        ],
    ),
    (
        "performance",
        "A whole command is # times as fast now, # times with OpenVINO in BF16; with eight bands "
        "# and # times.",
        lambda: gains_in_speed("beside") + gains_in_speed("beside8"),
    ),
    (
        "performance",
        "for # % of ERGAS and # % of SAM on the first pair",
        lambda: list(map(cost_of_less_overlap, ("ERGAS", "SAM"))),
    ),
    ("performance", "takes # s ([bench.json]", lambda: [in_bench("openvino", "load_seconds")]),
    (
        "performance",
        "a SPOT-6 pair of # x # pixels",
        lambda: 2 * [side("beside")],
    ),
    ("performance", "a WorldView-2 pair of # x # pixels", lambda: 2 * [side("beside8")]),
    (
        "performance",
        "is # GFLOP of matrix products, # million exponentials, and at most # MB",
        lambda: [
            report("work")["GFLOP"],
            report("work")["exponentials"] / 1e6,
            work.traffic(report("work")),
        ],
    ),
    (
        "performance",
        "(every layer's result written and read once, # MB, plus the weights)",
        lambda: [report("work")["MB of results, written and read"]],
    ),
    ("performance", "A scene has # tiles a Mpixel", lambda: [1e6 / work.NEW**2]),
    ("performance", "takes # GB with ONNX Runtime and # GB with OpenVINO", network_gb),
    (
        "runs",
        "One scene of # x # pixels and four bands, one step, blocks of at most # pixels",
        lambda: [*2 * [report("resume")["size"]], report("resume")["block"]],
    ),
    (
        "runs",
        "Fusing # x # pixels of a pair of # x # (cloud-optimised, # MB)",
        lambda: [
            *2 * [report("requests")["pixels of the window"]],
            *2 * [report("requests")["pixels of PAN"]],
            report("requests")["MB of both files"],
        ],
    ),
    ("runs", "takes # requests and # MB,", lambda: of_requests("requests", "MB")),
    (
        "runs",
        "with GDAL's own settings # requests",
        lambda: of_requests("requests", settings="GDAL's own settings"),
    ),
    (
        "scale",
        "One scene of # x # pixels and four bands, one step, blocks of at most # pixels",
        lambda: [*2 * [report("scale")["size"]], report("scale")["block"]],
    ),
    (
        "scale",
        "# km² in pixels of # m with eight bands would take: # million Mpixel",
        lambda: [
            *of_country("area, km²", "pixel of PAN, m"),
            of_country("Mpixel of PAN")[0] / 1e6,
        ],
    ),
    ("scale", "on two cores takes # s a Mpixel", lambda: of_country(NETWORK)),
    ("scale", "everything but the network takes # s a Mpixel", lambda: of_country(REST)),
    ("scale", "did everything but the network: # Mpixel/s.", lambda: [1 / of_country(REST)[0]]),
    (
        "scale",
        "With **100**, # commands share the workers, on machines of their own: # Mbyte/s written",
        lambda: [
            commands := country(100, "commands that write"),
            country(100, "MB/s written") / commands,
        ],
    ),
    ("scale", "**1,000**, # Gbyte/s are written", lambda: [country(1000, "MB/s written") / 1000]),
    ("scale", "takes about # workers", lambda: [country(1, "days for the country")]),
    (
        "scenes",
        "Measured on # simulated pairs of each kind",
        lambda: [sum(case["kind"] == "aligned" for case in report("registration"))],
    ),
    (
        "scenes",
        "it is # on GeoEye-1, # on SPOT-6 and # on the tanks of Rotterdam, in digital numbers",
        lambda: list(map(consistency, ("GeoEye-1", "SPOT-6", "Rotterdam, tanks"))),
    ),
    (
        "steps",
        "within # % of the best of `consistent` on GeoEye-1 and # % on WorldView-3",
        lambda: list(map(of_one_step, STEPS[:2])),
    ),
    ("steps", "ERGAS changes by #, # and # %", lambda: of_ten_steps(0)),
    ("steps", "SAM by at most # %", lambda: [max(map(abs, of_ten_steps(1)))]),
    ("steps", "by # to # % on GeoEye-1 and", lambda: of_released("GeoEye-1")),
    ("steps", "by # to # % on Rotterdam", lambda: of_released("Rotterdam, tanks")),
    (
        "steps",
        "better by # to # % on WorldView-3",
        lambda: [-change for change in reversed(of_released("WorldView-3"))],
    ),
    (
        "uncertainty",
        "FLOOR = #, DETAIL = #, UNEXPLAINED = #",
        lambda: [float(n) for n in NUMBER.findall(report("uncertainty")["formula"])[1:]],
    ),
    (
        "uncertainty",
        "near the maximum likelihood (#, # and #)",
        lambda: report("uncertainty")["fit"].values(),
    ),
    (
        "uncertainty",
        "correlations of # (detail), # (unexplained) and # (inconsistency), all together #",
        lambda: [
            *map(mean_of_part, ("detail", "unexplained", "inconsistency")),
            mean(of_uncertainty("rank correlation")),
        ],
    ),
    (
        "uncertainty",
        "The rank correlation is # to # over a scene, and # or more where",
        lambda: [
            min(found := of_uncertainty("rank correlation")),
            max(found),
            min(of_uncertainty("rank correlation, mean of bands")),
        ],
    ),
    ("uncertainty", "# % of the errors are less than half or more than", lambda: [far_off()]),
    (
        "uncertainty",
        "is between # % less (Pleiades, a resampled product) and # % more (QuickBird)",
        lambda: error_ratios(fitted=True),
    ),
    (
        "uncertainty",
        "had no part in the fit, between # % less and # % more",
        lambda: error_ratios(fitted=False),
    ),
    (
        "uncertainty",
        "least uncertainty errs by # times as much",
        lambda: [surest_tenth("Rotterdam, harbour")],
    ),
    (
        "uncertainty",
        "the mean error is # % above",
        lambda: [100 * (of_uncertainty("mean error / mean uncertainty")[-1] - 1)],
    ),
    (
        "weights",
        "for # and # iterations with the recipe as it is; these last ones took # and # minutes",
        lambda: [
            n for pair in zip(*map(training, ("generic4", "generic8")), strict=True) for n in pair
        ],
    ),
    (
        "weights",
        "# times as fast as tiles of 64 in two steps",
        lambda: [tiles(LARGE_TWO, "seconds per Mpixel") / tiles(ONE, "seconds per Mpixel")],
    ),
    (
        "weights",
        "(D_rho # in place of #)",
        lambda: [tiles(LARGE, "D_rho"), tiles(ONE, "D_rho")],
    ),
    (
        "weights",
        "closer to MS by # % (R-ERGAS), for # times the time",
        lambda: [
            -more(tiles(LARGE, "R-ERGAS"), tiles(ONE, "R-ERGAS")),
            tiles(LARGE, "seconds per Mpixel") / tiles(ONE, "seconds per Mpixel"),
        ],
    ),
    (
        "weights",
        "on GeoEye-1 and the tanks their ERGAS is # and # % lower",
        lambda: [-of_large_tiles(scene) for scene in ("GeoEye-1", "Rotterdam, tanks")],
    ),
    (
        "weights",
        "on Pleiades and the two pairs of QuickBird it is #, # and # % higher",
        lambda: list(map(of_large_tiles, ("Pleiades", "QuickBird 8 bit, 1", "QuickBird 8 bit, 2"))),
    ),
    ("weights", "it changes ERGAS by # % at most", lambda: [of_a_second_step()]),
    (
        "weights",
        "is better in ERGAS on # of # pairs, in SAM on # and in Q2n on #.",
        lambda: [better("ERGAS"), len(scenes_of_weights()), better("SAM"), better("Q2n")],
    ),
    ("weights", "truer to MS than MTF-GLP-FS on # of # pairs", truer),
    (
        "weights",
        "classical method is better in ERGAS, by # % (harbour) and # % (tanks)",
        lambda: [behind("weights", f"Rotterdam, {name}") for name in ("harbour", "tanks")],
    ),
]
"""Page, a part of a sentence with # for each figure, and what a report has for them."""


def figures(text: str, phrase: str) -> list[str]:
    """What stands for each # where a phrase stands in a text; once in all of it."""
    pattern = re.escape(phrase).replace(re.escape("#"), f"({NUMBER.pattern})")
    (found,) = re.finditer(pattern, " ".join(text.split()))
    return [number.replace(",", "") for number in found.groups()]


@pytest.mark.parametrize(("page", "phrase", "written"), STATED)
def test_the_figures_of_a_sentence_come_from_a_report(page, phrase, written):
    shown, values = (
        figures(page_of(page).read_text(), phrase),
        [float(value) for value in written()],
    )
    assert len(shown) == len(values)
    wrong = [
        f"{number} for {value}"
        for number, value in zip(shown, values, strict=True)
        if not comes_from([number], [str(value)])
    ]
    assert not wrong


def test_figures_are_found_in_a_sentence_across_lines():
    text = "It took 1,024.5 s, or\n  -.04 of it, on\n12 cores."
    assert figures(text, "took # s, or # of it") == ["1024.5", "-.04"]
    assert not comes_from(figures(text, "on # cores"), ["12.6"])
    with pytest.raises(ValueError, match="not enough values"):
        figures(text, "on # boards")
