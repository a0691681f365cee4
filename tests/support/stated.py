"""What reports say that sentences of documents state."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from statistics import mean, median
from typing import Any

from benchmarks import weights
from tests.support.figures import ROOT, manifest, report


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


def rates(name: str) -> dict[str, float]:
    """GFLOP/s of matrix products by precision."""
    return dict(report(name)["GFLOP/s"])


def side(name: str) -> float:
    """Of a square PAN, pixels."""
    return float(1e6 * report(name)["Mpixel of PAN"]) ** 0.5


def floors(name: str) -> list[float]:
    """Milliseconds of a step on a tile of 32 at the rates of matrix products, FP32 and BF16."""
    return [1000 * report("work")["GFLOP"] / rate for rate in rates(name).values()]


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


def in_memory(figure: str) -> list[float]:
    """Of each size of scene, with four bands."""
    return [row[figure] for row in report("memory") if row["bands"] == 4]


def steps_of(scene: str, sampler: str = "consistent") -> dict[tuple[str, int], list[float]]:
    """Means over the seeds of ERGAS, SAM and Q2n, by placement and number of steps."""
    return {
        (row["placement"], row["steps"]): [
            mean(scores) for scores in zip(*row["scores"], strict=True)
        ]
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
    quantised = report("int8")["bundles"]["generic4"]
    found = quantised["verdict"]
    changes = [more(found[measure], found[f"{measure}_fp32"]) for measure in ("ergas", "sam")]
    return [quantised["tiles"], found["tiles"], len(quantised["groups"]), *changes, found["psnr"]]


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
