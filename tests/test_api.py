"""The public face: what ``import ssdiff_trt`` offers, and how it is used."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio

import ssdiff_trt
from ssdiff_trt import (
    InputError,
    OutputError,
    Pansharpener,
    SSDiffError,
    SSDiffWarning,
    open_bundle,
    pansharpen,
)
from tests.support.backends import StandIn
from tests.support.rasters import read_raster, smooth


def test_every_public_name_is_there_and_the_import_loads_nothing():
    for name in ssdiff_trt.__all__:
        assert getattr(ssdiff_trt, name) is not None
    assert set(dir(ssdiff_trt)) == set(ssdiff_trt.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ssdiff_trt.nothing
    code = "import sys, ssdiff_trt; print({'numpy', 'rasterio', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_it_is_typed():
    assert (Path(ssdiff_trt.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize(
    "kind", ["BackendError", "BundleError", "InputError", "OutputError", "ParityError"]
)
def test_all_errors_are_of_one_family_and_can_be_sent_to_another_process(kind):
    error = getattr(ssdiff_trt, kind)("a sentence")
    assert isinstance(error, SSDiffError)
    assert str(pickle.loads(pickle.dumps(error))) == "a sentence"


def test_one_pansharpener_takes_paths_datasets_and_arrays(make_pair, bundle4, tmp_path):
    pan, ms = make_pair()
    with Pansharpener(bundle4, backend=StandIn(pan=0.2)) as sharpener:
        by_path = sharpener(pan, ms, tmp_path / "path.tif")
        with rasterio.open(pan) as pan_file, rasterio.open(ms) as ms_file:
            by_dataset = sharpener(pan_file, ms_file, tmp_path / "dataset.tif")
            image = sharpener(pan_file.read(1), ms_file.read(), full_scale=2047)
            assert not pan_file.closed
            assert not ms_file.closed
    expected = read_raster(by_path.output)
    np.testing.assert_array_equal(read_raster(by_dataset.output), expected)
    np.testing.assert_array_equal(image, expected)


def test_a_closed_dataset_is_refused(make_pair, bundle4, tmp_path):
    pan, ms = make_pair()
    with rasterio.open(pan) as closed:
        pass
    with pytest.raises(InputError, match=r"The PAN dataset .*pan.tif is closed; open it again"):
        pansharpen(closed, ms, tmp_path / "o.tif", bundle=bundle4, backend=StandIn())


def test_band_files_are_the_bands_of_one_image(make_pair, run, tmp_path):
    pan, ms = make_pair(ms={"nodata": 7})
    expected = read_raster(run((pan, ms), name="one.tif").output)
    files = []
    with rasterio.open(ms) as image:
        for number in image.indexes:
            files.append(tmp_path / f"band{number}.tif")
            profile = image.profile | {"count": 1}
            with rasterio.open(files[-1], "w", **profile) as file:
                file.write(image.read(number), 1)
    result = run((pan, files), name="many.tif")
    np.testing.assert_array_equal(read_raster(result.output), expected)
    with rasterio.open(result.output) as file:
        assert file.descriptions == ("band1", "band2", "band3", "band4")
        assert file.nodata == 7
    with pytest.raises(InputError, match=r"ms.tif has 4 bands, .* expected one band on the grid"):
        run((pan, [*files[:3], ms]), name="other.tif")
    with pytest.raises(InputError, match=r"ms.tif has 4 bands, .* all bands as MS itself, not as"):
        run((pan, [ms]), name="other.tif")
    with pytest.raises(InputError, match=r"ms.tif has 4 bands; band1.tif has one, so are the two"):
        run((ms, files[:1]), name="other.tif")


def test_bands_are_chosen_by_name(make_pair, run):
    names = ("red", "green", "blue", "nir")
    pair = make_pair(ms={"descriptions": names})
    by_number = run(pair, name="a.tif", bands=(3, 2, 1, 4))
    by_name = run(pair, name="b.tif", bands=("Blue", "green", "red", 4))
    assert by_name.output.read_bytes() == by_number.output.read_bytes()
    with pytest.raises(
        InputError, match=r"No band of ms\.tif is named 'swir'; the names are: red,"
    ):
        run(pair, name="c.tif", bands=("swir", 1, 2, 3))


def test_the_default_bundle_is_that_of_the_number_of_bands(make_pair, tmp_path):
    with Pansharpener() as sharpener:
        for bands, name in ((4, "generic4"), (8, "generic8")):
            with sharpener.plan(*make_pair(64, 64, bands), tmp_path / "o.tif") as plan:
                assert plan.bundle.manifest.name == name


def test_the_network_opens_at_once_for_a_number_of_bands(monkeypatch):
    opened = []
    monkeypatch.setattr(
        "ssdiff_trt.runtime.networks.open_backend",
        lambda name, bundle, **options: opened.append(bundle.manifest.name) or StandIn(),
    )
    sharpener = Pansharpener(bands=8)
    assert opened == ["generic8"]
    sharpener.network(open_bundle("generic8"))
    assert opened == ["generic8"]
    sharpener.close()
    sharpener.network(open_bundle("generic8"))
    assert opened == ["generic8"] * 2


def test_warnings_are_python_warnings_and_part_of_the_result(make_pair, bundle4, tmp_path):
    pair = make_pair(ms={"descriptions": ("red", "green", "blue", "nir")})
    options = {"bundle": bundle4, "backend": StandIn(), "bands": (1, 2, 3, 4)}
    with pytest.warns(SSDiffWarning) as record:
        result = pansharpen(*pair, tmp_path / "o.tif", dtype="uint8", **options)
    issued = [str(w.message) for w in record if issubclass(w.category, SSDiffWarning)]
    assert issued == list(result.warnings)
    assert len(result.warnings) == 2
    assert "MS are red, blue (as they are named) and taken as blue, red" in result.warnings[0]


def test_a_result_is_shown_in_one_line(make_pair, run):
    text = repr(run(make_pair()))
    assert text.endswith("out.tif: 192 x 160, 16 tiles, 0.0 s>") or "16 tiles" in text
    assert len(text.splitlines()) == 1


def test_an_unknown_argument_is_a_type_error(make_pair, tmp_path):
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        pansharpen(*make_pair(), tmp_path / "o.tif", colour="red")
    with pytest.raises(TypeError, match="unexpected keyword argument 'stepz'"):
        Pansharpener(stepz=1)


def test_folders_above_an_output_are_made_and_go_with_a_failure(make_pair, run, tmp_path):
    result = run(make_pair(), name="deep/er/out.tif")
    assert result.output.exists()

    class Failing(StandIn):
        def images(self, *tiles):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        run(make_pair(), Failing(), name="other/deep/out.tif")
    assert not (tmp_path / "other").exists()


def test_a_source_that_changes_meanwhile_is_noticed(make_pair, run, tmp_path):
    pan, ms = make_pair()

    class Overwriting(StandIn):
        def images(self, *tiles):
            pan.write_bytes(pan.read_bytes())
            os.utime(pan, ns=(1, 1))
            return super().images(*tiles)

    with pytest.raises(InputError, match="changed while it was read"):
        run((pan, ms), Overwriting())
    assert not (tmp_path / "out.tif").exists()


def test_two_threads_share_one_network(bundle4):
    pan, ms = smooth((1, 128, 128), seed=1)[0], smooth((4, 32, 32), seed=2)
    with Pansharpener(bundle4, threads=1) as sharpener:
        expected = [
            sharpener(pan, ms, full_scale=2047, shift="none", seed=seed) for seed in range(2)
        ]
        images: dict[int, np.ndarray] = {}

        def work(seed):
            images[seed] = sharpener(pan, ms, full_scale=2047, shift="none", seed=seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for seed in range(2):
        np.testing.assert_array_equal(images[seed], expected[seed])


def test_networks_on_a_gpu_take_pairs_in_turn(make_pair, bundle4):
    at_once = most = 0

    class OnGpu(StandIn):
        device = "gpu"

        def images(self, *tiles):
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            images = super().images(*tiles)
            at_once -= 1
            return images

    pan, ms = smooth((1, 256, 256), seed=1)[0], smooth((4, 64, 64), seed=2)
    sharpener = Pansharpener(bundle4, backend=OnGpu())
    threads = [
        threading.Thread(
            target=sharpener, args=(pan, ms), kwargs={"full_scale": 2047, "shift": "none"}
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_thirty_runs_leave_no_handle_thread_or_memory(make_pair, bundle4, tmp_path):
    def resident():
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def handles():
        """(number, file) of each; the listing's own is closed again when it is looked at."""
        found = set()
        for handle in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.add((handle.name, os.readlink(handle)))
        return found

    pair = make_pair()
    with Pansharpener(bundle4, backend=StandIn(pan=0.2)) as sharpener:

        def once():
            sharpener(*pair, tmp_path / "out.tif", overwrite=True)

        for _ in range(5):
            once()
        memory = resident()
        # What earlier tests left may go meanwhile: only what is new is counted.
        opened, threads = handles(), set(threading.enumerate())
        for _ in range(30):
            once()
        assert handles() - opened == set()
        assert set(threading.enumerate()) - threads == set()
        assert resident() - memory < 8 << 20


def test_an_output_is_refused_before_the_network_is_opened(make_pair, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ssdiff_trt.runtime.networks.open_backend", lambda *words, **o: pytest.fail("opened")
    )
    (tmp_path / "out.tif").touch()
    with pytest.raises(OutputError, match="exists; give another `output` or pass `overwrite`"):
        pansharpen(*make_pair(), tmp_path / "out.tif")
