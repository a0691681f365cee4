"""Options with hostile values, of every command."""

from __future__ import annotations

import random
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from tests.fuzz.harness import PROGRAMS
from tests.fuzz.mutation import NUMBERS, TEXTS
from tests.support.rasters import PairMaker

FILES = ("pan.tif", "ms.tif", "missing.tif", "folder", "empty", ".", "..", "-", "a/b/c.tif")
ENDS = {
    "ssdiff-trt run": ["--backend", "tensorrt"],  # refused after the plan: there is no GPU
    "ssdiff-trt verify": ["--backend", "tensorrt"],
    "ssdiff-trt bench": ["--compare", "empty"],
    "ssdiff-export": ["--tile", "17"],
    "ssdiff-ref evaluate": ["--method", "none"],
    "ssdiff-ref adapt": ["--minutes", "0"],
    "ssdiff-calibrate collect": ["--tiles", "1"],
}
"""Options at the end of a command, so that it does no long work even if all others are right."""


def make(seed: int, folder: Path) -> list[str]:
    chance = random.Random(seed)
    PairMaker(folder)(64, 64)
    (folder / "folder").mkdir()
    (folder / "empty").touch()
    (folder / "recipe.toml").write_text("bands = 4\n[[stages]]\niterations = 1\npatch = 512\n")
    program = chance.choice(list(PROGRAMS))
    command: Any = import_module(PROGRAMS[program]).cli
    words = [program]
    if isinstance(command, click.Group):
        name = chance.choice(list(command.commands))
        command = command.commands[name]
        words.append(name)
    end = ENDS.get(" ".join(words), [])
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    options = [param for param in command.params if isinstance(param, click.Option)]
    for option in options:
        if option.required and option.opts[-1] not in end:
            words += [option.opts[-1], valid(option, chance)]
    for option in chance.sample(options, min(len(options), chance.choice((0, 1, 1, 2, 3, 6)))):
        words.append(chance.choice(option.opts + option.secondary_opts))
        if not option.is_flag:
            words += [value(option, chance) for _ in range(option.nargs)]
    for argument in arguments:
        for _ in range(argument.nargs if argument.nargs > 0 else chance.choice((0, 1, 2, 2, 4))):
            words.append(
                valid(argument, chance) if chance.random() < 0.8 else value(argument, chance)
            )
    if chance.random() < 0.05:
        words.append(chance.choice(TEXTS))
    return [*words, *end]


def valid(param: click.Parameter, chance: random.Random) -> str:
    """A value that is likely to be taken."""
    name = param.name or ""
    if isinstance(param.type, click.Choice):
        return chance.choice([str(choice) for choice in param.type.choices])
    if name == "output":
        return chance.choice(("out.tif", "out.ssdiff", "out.npz", "new/out.tif", "run"))
    if name in ("pan", "inputs", "rasters"):
        return "pan.tif"
    known = {"config": "recipe.toml", "bundle": "missing.ssdiff", "method": "gsa", "ms": "ms.tif"}
    return known.get(name) or chance.choice(FILES)


def value(param: click.Parameter, chance: random.Random) -> str:
    """Some value: of the right form, a number, a list of numbers, a file, a text."""
    way = chance.randrange(6)
    if way == 0:
        return valid(param, chance)
    if way == 1:
        return str(chance.choice(NUMBERS))
    if way == 2:
        between = chance.choice((",", ",", " ", "=", ";"))
        return between.join(
            str(chance.choice(NUMBERS)) for _ in range(chance.choice((1, 2, 2, 4, 2000)))
        )
    if way == 3:
        return chance.choice(FILES)
    if way == 4:
        return chance.choice(TEXTS) + chance.choice(("", ".tif", "%", "W", "=1", ",1"))
    return chance.choice(TEXTS)
