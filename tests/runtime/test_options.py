"""Groups of options: their defaults and documentation, and the command line made from them."""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, fields
from typing import get_type_hints

import numpy as np
import pytest

from ssdiff_trt.cli.messages import as_flags, sentence
from ssdiff_trt.cli.trt import cli
from ssdiff_trt.runtime import options as groups
from ssdiff_trt.runtime.arguments import none_left, take
from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.schedule import make_schedule, spaced_timesteps

GROUPS = {
    groups.ReadOptions: groups.ReadArguments,
    groups.PairOptions: groups.PairArguments,
    groups.SamplingOptions: groups.SamplingArguments,
    groups.ExecutionOptions: groups.ExecutionArguments,
    groups.ClusterOptions: groups.ClusterArguments,
    groups.OutputOptions: groups.OutputArguments,
    groups.BlockOptions: groups.BlockArguments,
}


@pytest.mark.parametrize("group", GROUPS)
def test_the_typed_arguments_of_a_group_are_its_fields(group):
    types = get_type_hints(group)
    arguments = get_type_hints(GROUPS[group])
    if group is groups.ExecutionOptions:
        del types["backend"]  # may be an opened one where the arguments are used
    assert arguments == types


@pytest.mark.parametrize("group", GROUPS)
def test_every_field_is_documented_and_frozen(group):
    for field in fields(group):
        assert field.metadata["help"].endswith(".")
        assert field.default is not MISSING or field.default_factory is not MISSING
    with pytest.raises(FrozenInstanceError):
        group().anything = 1


def test_the_run_command_has_every_option_with_its_default_and_text():
    commands = {param.name: param for param in cli.commands["run"].params}
    for group in list(GROUPS)[1:]:
        for field in fields(group):
            option = commands[field.name]
            assert option.help == field.metadata["help"]
            if field.default is not MISSING:
                assert option.default == field.default or field.default is None


@pytest.mark.parametrize(
    ("group", "arguments", "parameter", "sentence"),
    [
        ("PairOptions", {"full_scale": 0}, "full_scale", "A full scale of 0 does not work"),
        ("PairOptions", {"pan_full_scale": float("inf")}, "pan_full_scale", "full scale of inf"),
        ("PairOptions", {"shift": "left"}, "shift", "A shift of left does not work"),
        ("PairOptions", {"shift": (1, float("nan"))}, "shift", "A shift of 1,nan does not work"),
        ("PairOptions", {"shift": (1, 2, 3)}, "shift", "A shift of 1,2,3 does not work"),
        ("SamplingOptions", {"seed": -1}, "seed", "The seed -1 does not work"),
        ("SamplingOptions", {"seed": 0.5}, "seed", "The seed 0.5 does not work"),
        ("SamplingOptions", {"seed": 2**64}, "seed", "The seed 18446744073709551616"),
        ("SamplingOptions", {"sampler": "ddim"}, "sampler", "The sampler 'ddim' is unknown"),
        ("SamplingOptions", {"steps": 1, "timesteps": [5]}, None, "Both `steps` and `timesteps`"),
        ("ExecutionOptions", {"batch": 0}, "batch", "0 does not work; give a number of 1 or more"),
        ("ExecutionOptions", {"threads": 2**31}, "threads", "2147483648 does not work"),
        ("ExecutionOptions", {"threads": "many"}, "threads", "'many' does not work"),
        ("ExecutionOptions", {"threads": 1.5}, "threads", "1.5 does not work"),
        ("ExecutionOptions", {"device": -1}, "device", "There is no GPU -1"),
        ("ExecutionOptions", {"backend": "cuda"}, "backend", "The backend 'cuda' is unknown"),
        ("ExecutionOptions", {"precision": "fp8"}, "precision", "The precision 'fp8' is unknown"),
        ("ClusterOptions", {"workers": 0}, "workers", "0 does not work; give a number of 1 or"),
        ("ClusterOptions", {"workers": 1, "scheduler": "a"}, "workers", "Both `workers` and"),
        ("ClusterOptions", {"mixed": True}, "mixed", "`mixed` is about workers and there are none"),
        ("OutputOptions", {"dtype": "complex64"}, "dtype", "The dtype 'complex64' is unknown"),
        ("BlockOptions", {"block": 0}, "block", "0 does not work"),
        ("PairOptions", {"full_scale": "x"}, "full_scale", "A full scale of 'x' does not work"),
        ("ReadOptions", {"pan_band": 1.0}, "pan_band", "1.0 does not work; give a whole number"),
        ("ReadOptions", {"bands": [1, 2.5]}, "bands", "2.5 does not work; give a whole number"),
        ("ReadOptions", {"bands": 3}, "bands", "3 does not work; give a list"),
        ("ReadOptions", {"bands": "3,2"}, "bands", "'3,2' does not work; give a list"),
        ("SamplingOptions", {"seed": "x"}, "seed", "The seed 'x' does not work"),
        ("SamplingOptions", {"seed": True}, "seed", "The seed True does not work"),
        ("SamplingOptions", {"steps": "5"}, "steps", "'5' does not work; give a whole number"),
        ("SamplingOptions", {"timesteps": 5}, "timesteps", "5 does not work; give a list"),
        ("SamplingOptions", {"timesteps": [5.5]}, "timesteps", "5.5 does not work; give a whole"),
        ("SamplingOptions", {"tile_overlap": 4.0}, "tile_overlap", "4.0 does not work; give a"),
        ("ExecutionOptions", {"batch": True}, "batch", "True does not work; give a whole number"),
        ("ExecutionOptions", {"device": "0"}, "device", "'0' does not work; give a whole number"),
        ("ReadOptions", {"nodata": "x"}, "nodata", "'x' does not work; give a number"),
        ("PairOptions", {"shift": 5}, "shift", "A shift of 5 does not work; give auto, none"),
        ("PairOptions", {"shift": ("a", 1)}, "shift", "A shift of ('a', 1) does not work"),
        ("OutputOptions", {"scale": 5}, "scale", "The interval 5 does not work; give two numbers"),
        ("OutputOptions", {"scale": ("a", 1)}, "scale", "The interval ('a', 1) does not work"),
        ("OutputOptions", {"scale": (2, 1)}, "scale", "The interval 2,1 does not work"),
        ("BlockOptions", {"block": 5.5}, "block", "5.5 does not work; give a whole number"),
    ],
)
def test_a_value_that_does_not_work_is_refused_by_name(group, arguments, parameter, sentence):
    with pytest.raises(InputError) as refused:
        getattr(groups, group)(**arguments)
    assert sentence in str(refused.value)
    assert refused.value.parameter == parameter


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_numbers_of_numpy_become_python_ones(kind):
    four = kind(4)
    sampling = groups.SamplingOptions(
        seed=four, timesteps=np.array([4, 2], kind), tile_overlap=four
    )
    assert (sampling.seed, sampling.timesteps, sampling.tile_overlap) == (4, (4, 2), 4)
    execution = groups.ExecutionOptions(device=four, threads=four, batch=four)
    pair = groups.PairOptions(bands=[four, "red"], pan_band=four, full_scale=four)
    assert pair.bands == (4, "red")
    for value in (
        *(sampling.seed, *sampling.timesteps, sampling.tile_overlap, pair.bands[0], pair.pan_band),
        *(execution.device, execution.threads, execution.batch),
        groups.SamplingOptions(steps=four).steps,
        groups.BlockOptions(block=four).block,
    ):
        assert type(value) is int
    assert make_schedule([four]).timesteps == (4,)
    assert len(spaced_timesteps(four)) == 4


def test_arguments_are_sorted_into_groups_and_the_rest_is_a_type_error():
    arguments = {"seed": 3, "nodata": 0, "colour": "red"}
    assert take(groups.PairOptions, arguments).nodata == 0
    assert take(groups.SamplingOptions, arguments).seed == 3
    with pytest.raises(TypeError, match=r"f\(\) got an unexpected keyword argument 'colour'"):
        none_left(arguments, "f")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("pass `nodata=0`.", "pass --nodata 0."),
        ("choose `pan_band` or `precision=fp32`", "choose --pan-band or --precision fp32"),
        ("check `creation_options`", "check --co"),
        ("the file `A b`", "the file `A b`"),
    ],
)
def test_a_command_names_options_where_the_library_names_parameters(message, shown):
    assert as_flags(message) == shown


def test_a_command_says_which_option_is_wrong():
    with pytest.raises(InputError) as refused:
        groups.PairOptions(pan_full_scale=-1)
    assert sentence(refused.value) == (
        "Invalid value for '--pan-full-scale': A full scale of -1 does not work; give a number "
        "above 0."
    )
