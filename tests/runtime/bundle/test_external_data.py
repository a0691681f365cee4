"""Names of files in ONNX graphs: all are found, and a bundle's graph may name its weights alone."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from ssdiff_trt.runtime.bundle import external_data
from ssdiff_trt.runtime.bundle.external_data import external_files
from ssdiff_trt.runtime.bundle.store import open_bundle
from ssdiff_trt.runtime.errors import BundleError


def field(number, content):
    """A field that is a message or a string, as Protocol Buffers write it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number):
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def tensor(location):
    return field(13, field(1, b"location") + field(2, location.encode()))


PLACES = {
    "initializer": lambda inner: field(7, field(5, inner)),
    "sparse initializer": lambda inner: field(7, field(15, field(1, inner))),
    "attribute": lambda inner: field(7, field(1, field(5, field(5, inner)))),
    "tensors of an attribute": lambda inner: field(7, field(1, field(5, field(10, inner)))),
    "graph in a graph": lambda inner: field(7, field(1, field(5, field(6, field(5, inner))))),
    "function": lambda inner: field(25, field(7, field(5, field(5, inner)))),
    "training": lambda inner: field(20, field(1, field(5, inner))),
}


@pytest.mark.parametrize("place", PLACES)
def test_names_are_found_wherever_a_tensor_can_be(place):
    model = field(2, b"name") + PLACES[place](tensor("../secret") + tensor("b")) + b"\x08\x0a"
    assert external_files(model) == {"../secret", "b"}


def test_the_last_of_several_values_counts_as_for_other_readers():
    entry = (
        field(1, b"offset") + field(2, b"good") + field(1, b"location") + field(2, b"/etc/passwd")
    )
    assert external_files(field(7, field(5, field(13, entry)))) == {"/etc/passwd"}


def test_the_messages_are_those_of_onnx():
    """Every field of onnx.proto that can lead to external data is looked into."""
    onnx = pytest.importorskip("onnx")
    messages = {name: message for name, message in vars(onnx).items() if name.endswith("Proto")}
    inner = {
        name: {f.number: f.message_type.name for f in message.DESCRIPTOR.fields if f.message_type}
        for name, message in messages.items()
    }
    leads = {"TensorProto"}
    for _ in inner:
        leads |= {name for name, fields in inner.items() if leads & set(fields.values())}
    expected = {
        name.removesuffix("Proto"): {
            number: other.removesuffix("Proto")
            for number, other in inner[name].items()
            if other in leads
        }
        for name in leads
        if name.removesuffix("Proto") in external_data._MESSAGES  # others, no model leads to
    }
    (number,) = (f.number for f in onnx.TensorProto.DESCRIPTOR.fields if f.name == "external_data")
    expected |= {"Tensor": {number: "ExternalData"}, "ExternalData": {}}
    assert expected == external_data._MESSAGES


GROUP, HUGE_FIELD, LONG, CUT = (
    b"\x3b",
    b"\xba\x80\x80\x80\x10\x00",
    b"\x08" + b"\x80" * 10,
    b"\x3a\x09a",
)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (GROUP, "a field of kind 3"),
        (HUGE_FIELD, "a number that does not exist"),
        (LONG, "more than 64 bits"),
        (CUT, "cut off"),
        (b"\x3a", "cut off"),
        (field(7, CUT), "cut off"),
        (b"\x09\x00", "cut off"),
    ],
)
def test_what_is_no_onnx_file_is_refused(model, reason):
    with pytest.raises(ValueError, match=reason):
        external_files(model)


@pytest.fixture
def replace(bundle4, tmp_path):
    """Replaces a graph of a bundle, and its sha256 in the manifest."""

    def replace(content):
        folder = shutil.copytree(bundle4.path, tmp_path / "copy.ssdiff")
        name = "denoiser.fp32.portable.onnx"
        (folder / name).write_bytes(content((folder / name).read_bytes()))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return replace


@pytest.mark.parametrize(
    "location",
    [
        "../weights.fp32.safetensors",
        "/etc/passwd",
        "unlisted.bin",
        "step.fp32.portable.onnx",
        "*/_ORT_MEM_ADDR_/*",
        "",
    ],
)
def test_a_graph_that_names_another_file_than_its_weights_is_refused(replace, location):
    extra = field(7, field(5, tensor(location)))
    with pytest.raises(BundleError, match=r"portable.onnx takes constants from .* do not use this"):
        open_bundle(replace(lambda content: content + extra))


def test_a_graph_that_is_no_onnx_file_is_refused(replace):
    with pytest.raises(BundleError, match=r"portable.onnx is not an ONNX file \(it is cut off\)"):
        open_bundle(replace(lambda content: content[:-1]))
