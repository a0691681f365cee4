"""Products whose metadata are damaged, or made to occupy their reader without end."""

from __future__ import annotations

import os
import zipfile

import pytest

from ssdiff_trt.runtime.errors import InputError
from ssdiff_trt.runtime.raster import products
from ssdiff_trt.runtime.raster.products import read_product

REFLECTANCE = (
    "<RADIOMETRIC_PROCESSING>REFLECTANCE</RADIOMETRIC_PROCESSING>"
    "<Band_Reflectance><GAIN>10000</GAIN></Band_Reflectance>"
)


def product(root, encoding="<NBITS>12</NBITS>"):
    """The metadata of PAN and MS."""
    root.mkdir()
    for name, kind in (("P", "P"), ("MS", "MS")):
        (root / f"DIM_{name}.XML").write_text(
            f"<Dimap_Document><SPECTRAL_PROCESSING>{kind}</SPECTRAL_PROCESSING>{encoding}"
            "</Dimap_Document>"
        )
    return root


def encrypted(root):
    path = packed(root)
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := content.find(signature, place + 1)) >= 0:
            content[place + flags] |= 1
    path.write_bytes(content)
    return path


def damaged_zip(root):
    path = packed(root)
    content = bytearray(path.read_bytes())
    place = content.find(b"PK\x03\x04")
    content[place + 60 : place + 80] = b"\xff" * 20
    path.write_bytes(content)
    return path


def packed(root):
    """The metadata of a product alone, compressed."""
    product(root)
    path = root / "product.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("DIM_*.XML")):
            archive.write(file, file.relative_to(root))
    return path


def large_file(root):
    path = product(root) / "DIM_P.XML"
    path.write_text(path.read_text() + " " * (1 << 20))
    return root


def odd_encoding(root):
    path = product(root) / "DIM_P.XML"
    path.write_text('<?xml version="1.0" encoding="klingon"?>' + path.read_text())
    return root


def too_few_bits(root):
    return product(root, encoding="<NBITS>-5</NBITS>")


def endless_gain(root):
    return product(root, encoding=REFLECTANCE.replace("<GAIN>10000", "<GAIN>1e999"))


def many_files(root):
    product(root)
    for number in range(60):
        (root / f"{number}.txt").touch()
    return root


def many_entries(root):
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(60):
            archive.writestr(f"{number}.txt", "")
    return path


def no_files(root):
    """Pipes with names of metadata."""
    root.mkdir()
    os.mkfifo(root / "DIM_A.XML")
    os.mkfifo(root / "a.IMD")
    return root


def long_link(root):
    root.mkdir()
    path = root / "VOL_A.XML"
    link = f'<COMPONENT_PATH href="DIM_{"x" * 300}.XML"/>'
    path.write_text(f"<Dimap_Document>{link}</Dimap_Document>")
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (encrypted, "product.zip cannot be read .*(encrypted|password)"),
        (damaged_zip, "product.zip cannot be read"),
        (large_file, "DIM_P.XML is not plain XML .it has more than 1 MiB"),
        (odd_encoding, "DIM_P.XML is not plain XML"),
        (too_few_bits, "has a wrong value .-5 bits"),
        (endless_gain, "has a wrong value .GAIN inf"),
        (many_files, "has more than 50 files, expected those of one product"),
        (many_entries, "has more than 50 files, expected those of one product"),
        (no_files, "MS is missing, and product is not a product"),
        (long_link, "VOL_A.XML cannot be read"),
    ],
)
def test_damaged_products_are_one_sentence(make, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(products, "_MOST_FILES", 50)
    monkeypatch.setattr(products, "_LARGEST", 1 << 20)
    with pytest.raises(InputError, match=sentence):
        read_product(make(tmp_path / "product"))


def test_folders_that_link_in_circles_are_read_once(tmp_path):
    root = product(tmp_path / "product")
    for name in ("a", "b", "c"):
        (root / name).symlink_to(root)
    assert read_product(root).pan.kind == "PAN"
