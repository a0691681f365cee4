"""Options that commands share. Those of a run are made from the fields of its option groups."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ssdiff_trt.runtime import options as groups
from ssdiff_trt.runtime.sensors import SENSORS

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]
SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "auto_envvar_prefix": "SSDIFF",
}


def integers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """Option callback for whole numbers with commas between them, such as 4,3,2."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a list of whole numbers; write them like 4,3,2.", ctx, param
        ) from None


def band_list(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int | str, ...] | None:
    """Option callback for bands by number or name, such as 4,3,2 or nir,red,green."""
    if value is None:
        return None
    bands = [part.strip() for part in value.split(",")]
    if not all(bands):
        raise click.BadParameter(
            f"{value!r} is not a list of bands; write it like 3,2,1 or red,green,blue.", ctx, param
        )
    return tuple(int(band) if band.isdecimal() else band for band in bands)


def shift_choice(
    ctx: click.Context, param: click.Parameter, value: str
) -> str | tuple[float, float]:
    """Option callback for auto, none, or two numbers such as -0.9,1.4."""
    if value in ("auto", "none"):
        return value
    try:
        rows, cols = map(float, value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is none of auto, none and ROWS,COLS; write a shift like -0.9,1.4.",
            ctx,
            param,
        ) from None
    return rows, cols


def interval(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    """Option callback for two numbers such as 0,2047."""
    if value is None:
        return None
    try:
        low, high = map(float, value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not MIN,MAX; write an interval like 0,2047.", ctx, param
        ) from None
    return low, high


def watts(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Option callback for a power such as 30W."""
    if value is None:
        return None
    try:
        power = float(value.upper().removesuffix("W"))
        if not 0 < power < float("inf"):
            raise ValueError
        return power
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a power; write it like 30W.", ctx, param
        ) from None


def key_values(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    """Option callback for pairs such as COMPRESS=ZSTD."""
    pairs = {}
    for text in value:
        key, equals, content = text.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{text!r} is not of the form KEY=VALUE.", ctx, param)
        pairs[key] = content
    return pairs


def share(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Option callback for a share such as 1% or 0.01."""
    number, percent, rest = value.partition("%")
    try:
        if rest:
            raise ValueError
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a share; write one like 1%.", ctx, param
        ) from None


def area_of(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | str | None:
    """Option callback for four numbers with commas between them, or the name of a file."""
    try:
        return None if value is None else tuple(map(float, value.split(",")))
    except ValueError:
        return value


class BundleName(click.types.StringParamType):
    """A bundle: a directory, or the name of a shipped one. Completion offers both."""

    name = "bundle"
    path = "dir"

    def __init__(self, *words: str) -> None:
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        check_name(self, str(value), param, ctx)
        return super().convert(value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from ssdiff_trt.runtime.bundle.store import shipped

        names = (*self._words, *shipped())
        offers = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return [*offers, CompletionItem(incomplete, type=self.path)]


class WeightsName(BundleName):
    """A weights file, or a bundle. Completion offers files as well."""

    name = "weights"
    path = "file"


class FileName(click.Path):
    """A file or folder, for completion; what it has to be is checked by the library."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str):
            check_name(self, value, param, ctx)
        return super().convert(value, param, ctx)


def check_name(
    kind: click.ParamType[Any], value: str, param: click.Parameter | None, ctx: click.Context | None
) -> None:
    """That a file can have such a name; a configuration can hold any character."""
    if "\0" in value:
        kind.fail(f"{value!r} holds the character NUL, which no file name can.", param, ctx)


FILE = FileName()
FOLDER = FileName(file_okay=False)


def together(*options: Decorator[Any]) -> Decorator[Any]:
    """Several options as one decorator, shown in this order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_SPECIAL: dict[str, dict[str, Any]] = {
    "bands": {"callback": band_list, "metavar": "BAND,BAND,..."},
    **{
        name: {"type": int, "metavar": "N"}
        for name in ("pan_band", "steps", "tile_overlap", "device", "threads", "batch", "block")
    },
    **{name: {"type": int, "metavar": "N"} for name in ("uncertainty_seeds", "workers")},
    **{name: {"type": float, "metavar": "VALUE"} for name in ("nodata", "pan_nodata", "ms_nodata")},
    "zero_bands": {"type": click.Choice(groups.ZERO_BANDS)},
    "georeferencing": {"type": click.Choice(groups.GEOREFERENCING)},
    "full_scale": {"type": float, "metavar": "DN"},
    "pan_full_scale": {"type": float, "metavar": "DN"},
    "shift": {"callback": shift_choice, "metavar": "auto|none|ROWS,COLS"},
    "timesteps": {"callback": integers, "metavar": "T,T,..."},
    "sampler": {"type": click.Choice(groups.SAMPLERS)},
    "back_projection": {"type": float, "metavar": "SHARE"},
    "backend": {"type": click.Choice(groups.BACKENDS)},
    "precision": {"type": click.Choice(groups.PRECISIONS)},
    "scheduler": {"type": str, "metavar": "ADDRESS|FILE"},
    "dtype": {"type": click.Choice(groups.DTYPES)},
    "driver": {
        "type": click.Choice(groups.DRIVERS, case_sensitive=False),
        "metavar": f"[{'|'.join(groups.DRIVERS)}]",
    },
    "creation_options": {"callback": key_values, "multiple": True, "metavar": "KEY=VALUE"},
    "scale": {"callback": interval, "metavar": "MIN,MAX"},
    "area": {"callback": area_of, "metavar": "MINX,MINY,MAXX,MAXY|FILE"},
    **{name: {"is_flag": True} for name in ("trust_engines", "overviews", "overwrite", "resume")},
    "mixed": {"is_flag": True},
    "live": {"type": FILE, "metavar": "FILE.vrt"},
    "uncertainty": {"type": FILE, "metavar": "FILE.tif"},
}
"""What the command line adds to a field of the groups."""
_NAMES = {
    "bands": ("-b", "--bands"),
    "creation_options": ("--co", "creation_options"),
    "resume": ("--resume/--no-resume",),
}


def group_options(group: type, *, without: tuple[str, ...] = (), **changes: Any) -> Decorator[Any]:
    """The options of a group.

    Args:
        group: a class of :mod:`ssdiff_trt.runtime.options`.
        without: fields that the command does not have.
        changes: texts in place of those of the fields.
    """
    return together(
        *(
            field_option(field, changes.get(field.name))
            for field in fields(group)
            if field.name not in without
        )
    )


def field_option(field: Field[Any], text: str | None = None, default: Any = None) -> Decorator[Any]:
    """The option of a field, with its default and documentation, or others."""
    if default is None and field.default is not MISSING:
        default = field.default
    return click.option(
        *_NAMES.get(field.name, (f"--{field.name.replace('_', '-')}",)),
        default=() if field.name == "creation_options" else default,
        show_default=default is not None and default is not False,
        help=text or field.metadata["help"],
        **_SPECIAL.get(field.name, {"type": type(default)}),
    )


def one_option(
    group: type, name: str, text: str | None = None, default: Any = None
) -> Decorator[Any]:
    """The option of one field of a group."""
    (field,) = (field for field in fields(group) if field.name == name)
    return field_option(field, text, default)


pair_options = group_options(groups.PairOptions)
sampling_options = group_options(groups.SamplingOptions)
execution_options = group_options(groups.ExecutionOptions)
cluster_options = group_options(groups.ClusterOptions)
output_options = group_options(groups.OutputOptions)
block_options = group_options(groups.BlockOptions)
overwrite_option = one_option(groups.OutputOptions, "overwrite")
sensor_option = click.option(
    "--sensor",
    type=click.Choice(list(SENSORS)),
    default="generic",
    show_default=True,
    help="Sensor that acquired the imagery; its MTF is used.",
)
json_option = click.option(
    "--json", type=FILE, metavar="FILE", help="Also write the results as JSON; - prints them."
)
loss_option = click.option(
    "--max-ergas-loss",
    callback=share,
    default="1%",
    show_default=True,
    metavar="SHARE",
    help="Largest relative increase of ERGAS, and of SAM, that INT8 may cause.",
)
weights_key_option = click.option(
    "--weights-key",
    metavar="NAME.NAME...",
    help="Key of the weights in the checkpoint that training or export starts from, such as ema; "
    "needed if the checkpoint has several sets of weights.",
)
ranges_option = click.option(
    "--ranges",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    default="minmax",
    show_default=True,
    help="Method that finds the ranges of INT8 from the samples.",
)


def _choose_progress(ctx: click.Context, param: click.Parameter, value: str) -> None:
    chosen_progress["kind"] = value


chosen_progress = {"kind": "auto"}
"""What ``--progress`` says in this process; errors are shown when the command is over."""
verbosity_options = together(
    click.option("-q", "--quiet", is_flag=True, help="Print warnings only."),
    click.option("-v", "--verbose", is_flag=True, help="Print more details."),
    click.option(
        "--progress",
        type=click.Choice(["auto", "bar", "lines", "json"]),
        default="auto",
        show_default=True,
        expose_value=False,
        is_eager=True,
        callback=_choose_progress,
        help="How progress and messages are shown on standard error; json: one object a line; "
        "auto: a bar on a terminal, else lines.",
    ),
)


pair_arguments = together(click.argument("pan", type=FILE), click.argument("ms", type=FILE))


def bundle_option(text: str, *words: str, **settings: Any) -> Decorator[Any]:
    """The option for a bundle."""
    return click.option(
        *settings.pop("names", ("--bundle",)), type=BundleName(*words), help=text, **settings
    )


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def scene_options() -> set[str]:
    """Names of the options that may differ from scene to scene of one command."""
    used = groups.PairOptions, groups.SamplingOptions, groups.OutputOptions, groups.BlockOptions
    return {field.name for group in used for field in fields(group)} | {"quicklook"}


def check_json(target: str | None, overwrite: bool, *others: str | None) -> None:
    """That JSON can be written there, and is none of the command's other files."""
    if target is None or target == "-":
        return
    from pathlib import Path

    from ssdiff_trt.runtime.files import check_target

    named = [Path(other) for other in others if other]
    if Path(target).absolute() in (other.absolute() for other in named):
        raise click.UsageError(f"--json {target} is another file of this command; give its own.")
    sources: list[str] = []
    if os.path.exists(target):  # False for a name that cannot be one
        from ssdiff_trt.runtime.raster.fingerprint import every_file

        sources = every_file(*filter(None, others))
    check_target(Path(target), sources, overwrite, "json")


def write_json_of(content: Any, target: str | None) -> None:
    """Write what JSON can hold, likewise."""
    from json import dumps

    write_json(dumps(content, indent=2), target)


def write_json(text: str, target: str | None) -> None:
    """Write JSON to a file, or to standard output for ``-``; nothing for None."""
    if target is None:
        return
    if target == "-":
        click.echo(text.encode())  # JSON is UTF-8, whatever the terminal takes
        return
    from pathlib import Path

    from ssdiff_trt.runtime.files import atomic_write

    with atomic_write(Path(target)) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")
