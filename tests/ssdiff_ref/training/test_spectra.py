"""Spectra of a hyperspectral scene give four bands their eight."""

from __future__ import annotations

import numpy as np
import pytest

from ssdiff_ref.training.config import Source
from ssdiff_ref.training.imagery import read_sources
from ssdiff_ref.training.spectra import AERIAL, WORLDVIEW, SpectralLibrary
from ssdiff_trt.runtime.errors import InputError

WAVELENGTHS = np.arange(380, 1050, 10.0)


def seen(spectra, edges):
    """Bands of spectra ``[n, wavelengths]``."""
    return np.stack(
        [
            spectra[:, (low <= WAVELENGTHS) & (high >= WAVELENGTHS)].mean(axis=1)
            for low, high in edges
        ],
        axis=1,
    )


@pytest.fixture
def spectra():
    """Three materials at four brightnesses."""
    vegetation = 0.05 + 0.4 / (1 + np.exp(-(WAVELENGTHS - 715) / 12))
    soil = 0.1 + 0.3 * (WAVELENGTHS - 380) / 670
    water = 0.02 + 0.1 * np.exp(-(((WAVELENGTHS - 480) / 90) ** 2))
    materials = np.stack([vegetation, soil, water])
    return np.concatenate([level * materials for level in (0.5, 1, 1.5, 2)])


@pytest.fixture
def library_file(tmp_path, spectra):
    path = tmp_path / "scene.npz"
    np.savez(path, image=spectra.reshape(3, 4, -1), wavelengths=WAVELENGTHS)
    return path


def test_pixels_get_the_bands_of_their_material_at_their_brightness(library_file, spectra):
    four, expected = seen(spectra, AERIAL), seen(spectra, WORLDVIEW)
    digital = np.rint(four.T.reshape(4, 3, 4) * 40_000).astype(np.uint16)
    eight = SpectralLibrary(library_file).expand(digital)
    assert (eight.shape, eight.dtype) == ((8, 3, 4), np.uint16)
    # Bands come out relative to their means.
    ours, true = (
        bands / bands.mean(axis=1, keepdims=True)
        for bands in (eight.reshape(8, -1).astype(float), expected.T)
    )
    np.testing.assert_allclose(ours, true, rtol=0.02)


def test_nodata_stays_nodata(library_file):
    pixels = np.full((4, 5, 6), 100, np.uint8)
    pixels[:, 2, 3] = 0
    eight = SpectralLibrary(library_file).expand(pixels)
    assert not eight[:, 2, 3].any()
    assert (np.delete(eight.reshape(8, -1), 2 * 6 + 3, axis=1) > 0).all()


def test_a_source_is_expanded_as_it_is_read(library_file, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(1, 99, (4, 8, 9), np.uint8))
    np.save(tmp_path / "b.npy", np.ones((8, 8, 9), np.uint8))
    sources = [
        Source(name="eight", files=("b.npy",)),
        Source(name="four", files=("a.npy",), spectra=library_file.name),
    ]
    first, second = read_sources(sources, tmp_path)
    assert first.pixels.max() == 1
    assert second.pixels.shape == (8, 8, 9)
    assert second.pixels.mean() == pytest.approx(2000, rel=0.5)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"image": np.ones((2, 2, 3)), "wavelengths": np.array([400.0, 500, 600])}, "not cover"),
        ({"image": np.ones((2, 2, 3))}, "cannot be read as a hyperspectral scene"),
        (
            {"image": np.zeros((2, 3, len(WAVELENGTHS))), "wavelengths": WAVELENGTHS},
            "no spectra above 0",
        ),
    ],
)
def test_a_file_that_does_not_do_gives_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "scene.npz"
    np.savez(path, **content)
    with pytest.raises(InputError, match=sentence):
        SpectralLibrary(path)
