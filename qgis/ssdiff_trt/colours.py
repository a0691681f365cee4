"""Showing a result in true colour: QGIS takes its first three bands for red, green and blue."""

from qgis.core import (
    QgsMultiBandColorRenderer,
    QgsProcessingLayerPostProcessorInterface,
    QgsRaster,
)

_COLOURS = (
    QgsRaster.ColorInterpretation.RedBand,
    QgsRaster.ColorInterpretation.GreenBand,
    QgsRaster.ColorInterpretation.BlueBand,
)


class TrueColour(QgsProcessingLayerPostProcessorInterface):
    """Chooses the bands of a loaded layer by their colour interpretation."""

    def postProcessLayer(self, layer, context, feedback):
        provider = layer.dataProvider()
        found = {
            provider.colorInterpretation(band): band for band in range(1, layer.bandCount() + 1)
        }
        bands = [found.get(colour) for colour in _COLOURS]
        if None not in bands:
            renderer = QgsMultiBandColorRenderer(provider, *bands)
            # A mask of the file is a band in QGIS.
            renderer.setAlphaBand(found.get(QgsRaster.ColorInterpretation.AlphaBand, -1))
            layer.setRenderer(renderer)
            layer.setDefaultContrastEnhancement()
            layer.triggerRepaint()
