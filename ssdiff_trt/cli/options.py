"""What every command of the project does alike: options, errors, exit codes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from ssdiff_trt.runtime.errors import SSDiffError

INTERRUPTED = 130
_EXTRAS = {
    "h5py": "evaluate",
    "matplotlib": "picture",
    "onnx": "calibrate",
    "onnxruntime": "cpu",
    "onnxscript": "export",
    "safetensors": "calibrate",
    "scipy": "evaluate",
    "tomli": "train",
    "torch": "export",
}
"""Packages that not every installation has, and the extra that brings them."""
Function = TypeVar("Function", bound=Callable[..., Any])
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


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
        raise click.BadParameter(f"{value!r} is no share; write one like 1%.", ctx, param) from None


def together(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options as one decorator, shown in this order."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def shift_option(default: str, text: str) -> Callable[[Function], Function]:
    """The option for a shift between PAN and MS."""
    return click.option(
        "--shift",
        callback=shift_choice,
        default=default,
        show_default=True,
        metavar="auto|none|ROWS,COLS",
        help=text,
    )


# As in ssdiff_trt.runtime.backends.protocol, which would take numpy to import.
BACKEND = click.Choice(["auto", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime"])
PRECISION = click.Choice(["auto", "fp32", "fp16", "bf16", "int8"])
backend_option = click.option(
    "--backend",
    type=BACKEND,
    default="auto",
    show_default=True,
    help="What runs the network; auto: the best one that works here, and it says which.",
)
precision_option = click.option(
    "--precision",
    type=PRECISION,
    default="auto",
    show_default=True,
    help="Of the network; auto: fp16 on a GPU, if the bundle has it, else fp32, and never int8.",
)
loss_option = click.option(
    "--max-ergas-loss",
    callback=share,
    default="1%",
    show_default=True,
    help="What INT8 may cost of ERGAS, and of SAM.",
)
ranges_option = click.option(
    "--ranges",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    default="minmax",
    show_default=True,
    help="How INT8 takes its ranges from the samples.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
verbosity_options = together(
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings."),
    click.option("-v", "--verbose", is_flag=True, help="Say more."),
)
sampling_options = together(
    click.option(
        "--sampler",
        type=click.Choice(["consistent", "released"]),
        help="consistent: as the network is trained. released: as the authors' code samples.",
    ),
    click.option(
        "--timesteps",
        callback=integers,
        metavar="N,N,...",
        help="Explicit timesteps, 0 to 999, such as 999,500.",
    ),
)
input_options = together(
    click.option(
        "-b",
        "--bands",
        callback=integers,
        metavar="N,N,...",
        help="Bands of MS, in the order that the network expects; default: all.",
    ),
    click.option("--pan-band", type=int, help="Band of PAN, if it has several."),
    click.option("--nodata", type=float, help="Value that means no data, whatever the files say."),
)
output_options = together(
    click.option(
        "--dtype",
        type=click.Choice(
            ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
        ),
        help="Of the result; default: that of MS. Rounded and clipped, never wrapped.",
    ),
    click.option(
        "--driver",
        type=click.Choice(["GTiff", "COG"], case_sensitive=False),
        default="GTiff",
        show_default=True,
    ),
    click.option(
        "--co",
        "options",
        callback=key_values,
        multiple=True,
        metavar="KEY=VALUE",
        help="Creation option; repeat.",
    ),
    overwrite_option,
)


def run(command: click.Command) -> NoReturn:
    """Run a command as a program.

    A user's mistake prints one sentence and exits with 2, an interruption exits with 130; other
    errors keep their traceback.
    """
    for name in ("SIGTERM", "SIGHUP"):  # clean up as after Ctrl-C
        if number := getattr(signal, name, None):
            signal.signal(number, lambda received, frame: sys.exit(128 + received))
    try:
        status = command.main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.Abort:
        print("Interrupted; no unfinished output is left.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SSDiffError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (extra := _EXTRAS.get(error.name or "")) is None:
            raise
        print(
            f"Error: {error.name} is not installed; pip install 'ssdiff-trt[{extra}]', or in a "
            f"clone '.[{extra}]'.",
            file=sys.stderr,
        )
        sys.exit(2)
