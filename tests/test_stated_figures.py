"""Figures in the sentences of documents are those that scripts wrote."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from statistics import mean, median
from typing import Any

import pytest

from benchmarks import weights
from benchmarks.performance import GFLOP
from tests.test_figures import NUMBER, ROOT, comes_from


@cache
def report(name: str) -> Any:
    """What a script wrote to a file of the documents."""
    return json.loads((ROOT / f"docs/{name}.json").read_text())


@cache
def manifest(bundle: str) -> Any:
    """What the export of a shipped bundle measured."""
    return json.loads((ROOT / f"runtime/bundles/{bundle}.ssdiff/manifest.json").read_text())


def more(value: float, than: float) -> float:
    """By how many percent."""
    return 100 * (value / than - 1)


def beside(name: str, method: str, figure: str = "s") -> float:
    return float(report(name)["methods"][method][figure])


OLD, NOW, IN_BF16 = (
    "commit a462044, whole command",
    "this version, whole command",
    "the same, OpenVINO in BF16",
)


def gains_in_speed(name: str) -> list[float]:
    """Of a whole command over the version before, by default and in BF16."""
    return [beside(name, OLD) / beside(name, method) for method in (NOW, IN_BF16)]


def cost_of_less_overlap(figure: str) -> float:
    few, default = "the same, `--tile-overlap 4`", "ONNX Runtime, FP32 (default)"
    return more(beside("beside", few, figure), beside("beside", default, figure))


def floors(name: str) -> list[float]:
    """Milliseconds of a step on a tile of 32 at the rates of matrix products, FP32 and BF16."""
    return [1000 * GFLOP[32] / rate for rate in report(name)["GFLOP/s"].values()]


def most_speed(name: str) -> float:
    return float(report(name)["ms"]["released"] / floors(name)[0])


def share(times: dict[str, float], kind: str) -> float:
    """Of a kind of operator in the time of all, percent."""
    return 100 * times[kind] / sum(times.values())


def in_bench(backend: str, figure: str) -> float:
    """Median over the processes of the cases of a backend."""
    cases = report("bench")["cases"]
    processes = [case["processes"] for case in cases if case["candidate"].startswith(backend)]
    return median(process[figure] for each in processes for process in each)


def network_gb() -> list[float]:
    return [in_bench(backend, "host_bytes") / 1e9 for backend in ("onnxruntime", "openvino")]


def peaks(bands: int = 4) -> list[float]:
    return [row["peak_mb"] for row in report("memory") if row["bands"] == bands]


def steps_of(scene: str, sampler: str = "consistent") -> dict[tuple[str, int], list[float]]:
    """Means over the seeds of ERGAS, SAM and Q2n, by placement and number of steps."""
    return {
        (row["placement"], row["steps"]): [mean(scores) for scores in zip(*row["scores"])]
        for row in report("steps")
        if (row["scene"], row["sampler"]) == (scene, sampler)
    }


STEPS = "GeoEye-1", "WorldView-3", "Rotterdam, tanks"


def of_ten_steps(measure: int) -> list[float]:
    """Change by ten evenly spaced steps in place of one, percent, by scene."""
    found = [steps_of(scene) for scene in STEPS]
    ten, one = ("evenly spaced", 10), ("evenly spaced", 1)
    return [more(scores[ten][measure], scores[one][measure]) for scores in found]


def of_one_step(scene: str) -> float:
    """Percent of ERGAS above the best of all schedules."""
    scores = {schedule: values[0] for schedule, values in steps_of(scene).items()}
    return more(scores["evenly spaced", 1], min(scores.values()))


def of_released(scene: str) -> list[float]:
    """Least and largest change of ERGAS by the released sampler on the same schedule, percent."""
    other, ours = steps_of(scene, "released"), steps_of(scene)
    changes = [more(other[schedule][0], ours[schedule][0]) for schedule in ours]
    return [min(changes), max(changes)]


def of_uncertainty(figure: str, *, bands4: bool = False, fitted: bool = True) -> list[Any]:
    """A figure of each scene."""
    rows = report("uncertainty")["scenes"].items()
    four = [row for name, row in rows if not (bands4 and name.endswith("8 bands"))]
    return [row[figure] for row in four if fitted or not row["fitted"]]


def error_ratios(*, fitted: bool) -> list[float]:
    """Percent that the mean error is less and more than the mean uncertainty, at most."""
    ratios = of_uncertainty("mean error / mean uncertainty", bands4=True, fitted=fitted)
    return [100 * (1 - min(ratios)), 100 * (max(ratios) - 1)]


def far_off() -> float:
    """Percent of the errors below half or above twice the uncertainty, mean of the scenes."""
    return 100 * mean(1 - s["2"] + s["0.5"] for s in of_uncertainty("shares within"))


def mean_of_part(part: str) -> float:
    return mean(row[part] for row in of_uncertainty("rank correlation of the parts"))


def surest_tenth(scene: str) -> float:
    estimate, error = report("uncertainty")["scenes"][scene]["tenths"][0]
    return float(error / estimate)


ONE, TWO = "32 pixels, 1 step", "32 pixels, 2 steps"
LARGE, LARGE_TWO = "64 pixels, 1 step", "64 pixels, 2 steps"


def tiles(name: str, figure: str) -> float:
    (row,) = (row for row in report("tiles")["table"] if row["name"] == name)
    return float(row[figure])


def of_large_tiles(scene: str) -> float:
    """Percent of ERGAS above that of tiles of 32."""
    scores = report("tiles")["scenes"][scene]["reduced"]
    return more(*(scores[f"ssdiff:{name}"]["ERGAS"] for name in (LARGE, ONE)))


def of_a_second_step() -> float:
    pairs = (TWO, ONE), (LARGE_TWO, LARGE)
    return max(abs(more(*(tiles(name, "ERGAS, relative") for name in pair))) for pair in pairs)


OURS = "ssdiff:generic4"


def scenes_of_weights() -> list[Any]:
    return list(report("weights")["scenes"].values())


def better(measure: str) -> int:
    """Pairs on which generic4 is better than the best of the others."""
    return sum(
        weights.REDUCED[measure](ours, weights.best(scene, measure)) == ours
        for scene in scenes_of_weights()
        for ours in [scene["reduced"][OURS][measure]]
    )


def truer() -> list[int]:
    """Pairs at full resolution where R-ERGAS is below that of MTF-GLP-FS, and all of them."""
    full = [scene["full"] for scene in scenes_of_weights() if scene["full"]]
    return [sum(s[OURS]["R-ERGAS"] < s["MTF-GLP-FS"]["R-ERGAS"] for s in full), len(full)]


def behind(name: str, scene: str, bundle: str = OURS) -> float:
    """Percent of ERGAS above that of the best of the others."""
    scores = report(name)["scenes"][scene]
    return more(scores["reduced"][bundle]["ERGAS"], weights.best(scores, "ERGAS"))


def consistency(scene: str) -> float:
    return float(report("weights")["scenes"][scene]["full"][OURS]["consistency"])


def training(bundle: str) -> tuple[int, float]:
    """Iterations of batches of 16, and their minutes."""
    with open(ROOT / f"docs/training/{bundle}-losses.csv") as file:
        rows = list(csv.DictReader(file))
    done = [int(row["iteration"]) for row in rows]
    lasted = zip(done, [0, *done], rows, strict=False)
    seconds = sum(16 * (now - was) / float(row["samples_per_s"]) for now, was, row in lasted)
    return done[-1], seconds / 60


def trajectories(bundle: str, precision: str) -> Iterator[Any]:
    """Steps of the trajectories of a parity check: those on random tiles, those on real ones."""
    (parity,) = (p for p in manifest(bundle)["parity"] if p["precision"] == precision)
    return (trajectory["steps"] for trajectory in parity["trajectories"])


def parity(precision: str, scale: float) -> Iterator[float]:
    """Largest RMSE of a step, and least PSNR at the end, on random and on real tiles."""
    for steps in trajectories("generic4", precision):
        yield scale * max(d["rmse"] for step in steps for d in step["deviations"].values())
        yield min(d["psnr"] for d in steps[-1]["deviations"].values())


def multiples_of_rounding() -> list[float]:
    """Least and largest deviation of a form in FP32, as a multiple of the allowed unit."""
    found = [
        deviation["max"] / max(step["rounding"]["max"], 2**-23)
        for bundle in ("generic4", "generic8")
        for steps in trajectories(bundle, "fp32")
        for step in steps
        for deviation in step["deviations"].values()
    ]
    return [min(found), max(found)]


def of_int8() -> list[float]:
    told = report("int8")["bundles"]["generic4"]
    found = told["verdict"]
    changes = [more(found[measure], found[f"{measure}_fp32"]) for measure in ("ergas", "sam")]
    return [told["tiles"], found["tiles"], len(told["groups"]), *changes, found["psnr"]]


def packages() -> list[float]:
    """Versions without what follows the second number."""
    found = report("beside")["environment"]["packages"]
    names = "onnxruntime", "openvino", "torch"
    return [float(".".join(found[name].split(".")[:2])) for name in names]


def of_requests(*figures: str, settings: str = "settings of this project") -> list[float]:
    return [report("requests")[settings][figure] for figure in figures]


def country(workers: int, figure: str) -> float:
    (row,) = (row for row in report("country")["rows"] if row["workers"] == workers)
    return float(row[figure])


def of_country(*figures: str) -> list[float]:
    return [report("country")[figure] for figure in figures]


def of_adaptation() -> list[float]:
    row = report("adaptation")["scenes"]["Rotterdam"]
    return [row["blocks"], more(row["after"]["R-ERGAS"], row["before"]["R-ERGAS"])]


NETWORK, REST = "s a Mpixel, two cores, BF16", "s a Mpixel, everything but the network"
STATED: list[tuple[str, str, Callable[[], Sequence[float] | Iterator[float]]]] = [
    (
        "README",
        "with eight bands SSDiff is # % worse in ERGAS",
        lambda: [behind("quality", "WorldView-3, 8 bands", "ssdiff:generic8")],
    ),
    (
        "README",
        "take # seconds for a million pixels of four bands, and # and # seconds for the classical",
        lambda: [
            beside("beside", method)
            for method in ("ONNX Runtime, FP32 (default)", "MTF-GLP-FS", "GSA")
        ],
    ),
    ("adaptation", "has # blocks for the verdict. R-ERGAS is # % worse there", of_adaptation),
    ("concepts", "change ERGAS by # % at most", lambda: [max(map(abs, of_ten_steps(0)))]),
    ("guarantees", "it peaks at #, # and # MB for 2500, 5000 and 10000 pixels", peaks),
    ("guarantees", "takes # GB with ONNX Runtime and # GB with OpenVINO", network_gb),
    ("int8", "(# tiles; # held out for the final score): # groups are in INT8,", lambda: of_int8()[:3]),
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
        "is # GFLOP; at the rate of large matrix products, # GFLOP/s in FP32 and # in BF16,",
        lambda: [GFLOP[32], *report("performance")["GFLOP/s"].values()],
    ),
    ("performance", "that is # and # ms on the first machine,", lambda: floors("performance")),
    ("performance", "# and # ms on B.", lambda: floors("performance-second")),
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
    ("performance", "takes # GB with ONNX Runtime and # GB with OpenVINO", network_gb),
    (
        "runs",
        "One scene of # x 1152 pixels and four bands, one step, blocks of at most # pixels",
        lambda: [report("resume")["size"], report("resume")["block"]],
    ),
    (
        "runs",
        "Fusing # x 512 pixels of a pair of # x 8192 (cloud-optimised, # MB)",
        lambda: [
            report("requests")[figure]
            for figure in ("pixels of the window", "pixels of PAN", "MB of both files")
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
        "One scene of # x 1728 pixels and four bands, one step, blocks of at most # pixels",
        lambda: [report("scale")["size"], report("scale")["block"]],
    ),
    (
        "scale",
        "# km² in pixels of # m with eight bands, # million Mpixel",
        lambda: [
            *of_country("area, km²", "pixel of PAN, m"),
            of_country("Mpixel of PAN")[0] / 1e6,
        ],
    ),
    ("scale", "Measured are # s a Mpixel for the network", lambda: of_country(NETWORK)),
    ("scale", "and # s a Mpixel for everything else", lambda: of_country(REST)),
    ("scale", "not the network: # Mpixel/s.", lambda: [1 / of_country(REST)[0]]),
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
    ("steps", "is # to # % worse on GeoEye-1,", lambda: of_released("GeoEye-1")),
    ("steps", "# to # % worse on Rotterdam", lambda: of_released("Rotterdam, tanks")),
    (
        "steps",
        "# to # % better on WorldView-3",
        lambda: [-change for change in reversed(of_released("WorldView-3"))],
    ),
    (
        "uncertainty",
        "FLOOR = #, DETAIL = #, UNEXPLAINED = #",
        lambda: [float(n) for n in NUMBER.findall(report("uncertainty")["formula"])[1:]],
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
        "the mean error is # % more.",
        lambda: [100 * (of_uncertainty("mean error / mean uncertainty")[-1] - 1)],
    ),
    (
        "weights",
        "# and # of the recipe as it is, which took # and # minutes",
        lambda: [n for pair in zip(*map(training, ("generic4", "generic8"))) for n in pair],
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
        lambda: list(
            map(of_large_tiles, ("Pleiades", "QuickBird 8 bit, 1", "QuickBird 8 bit, 2"))
        ),
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
        "is better in ERGAS by # and # %, once the pair is aligned",
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
    path = ROOT / ("README.md" if page == "README" else f"docs/{page}.md")
    shown, values = figures(path.read_text(), phrase), [float(value) for value in written()]
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
