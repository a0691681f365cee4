"""Python code in a VRT is never run, whatever the user allows other programs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import rasterio

VRT = """<VRTDataset rasterXSize="{width}" rasterYSize="{height}">
<VRTRasterBand dataType="{dtype}" band="1" subClass="VRTDerivedRasterBand">
<PixelFunctionType>fill</PixelFunctionType>
<PixelFunctionLanguage>Python</PixelFunctionLanguage>
<PixelFunctionCode><![CDATA[
open({trace!r}, "w").close()
def fill(in_ar, out_ar, *more, **named):
    out_ar[:] = 7
]]></PixelFunctionCode>
<SimpleSource><SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
</VRTRasterBand>
</VRTDataset>"""
READ = "import rasterio; rasterio.open({path!r}).read()"
OURS = (
    "from ssdiff_trt.runtime.raster.image import open_raster; open_raster({path!r}, 'PAN').read()"
)
LATE = f"import rasterio; rasterio.Env().__enter__(); {OURS}"  # GDAL has read its configuration


@pytest.mark.parametrize(
    ("allowed_by", "code", "runs"),
    [
        ("environment", OURS, False),
        ("configuration file", OURS, False),
        ("configuration file", LATE, False),
        ("environment", READ, True),  # it would run
        ("configuration file", READ, True),
    ],
)
def test_code_in_a_vrt_is_not_run(make_pair, tmp_path, allowed_by, code, runs):
    pan, _ = make_pair(64, 64)
    trace, vrt, rc = tmp_path / "trace", tmp_path / "code.vrt", tmp_path / "gdalrc"
    with rasterio.open(pan) as file:
        shape = {"width": file.width, "height": file.height, "dtype": "UInt16"}
    vrt.write_text(VRT.format(trace=str(trace), source=pan, **shape))
    rc.write_text("[configoptions]\nGDAL_VRT_ENABLE_PYTHON=YES\n")
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("GDAL_")}
    environment |= {
        "environment": {"GDAL_VRT_ENABLE_PYTHON": "YES"},
        "configuration file": {"GDAL_CONFIG_FILE": str(rc)},
    }[allowed_by]
    command = [sys.executable, "-W", "ignore", "-c", code.format(path=str(vrt))]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert (done.returncode == 0, trace.exists()) == (runs, runs)
