"""Showing a result in true colour: QGIS takes its first three bands for red, green and blue."""

from qgis.core import (
    QgsMultiBandColorRenderer,
    QgsProcessingLayerPostProcessorInterface,
    QgsRaster,
)


class TrueColour(QgsProcessingLayerPostProcessorInterface):
    """Chooses the bands of a loaded layer by their colour interpretation."""

    def postProcessLayer(self, layer, context, feedback):
        provider = layer.dataProvider()
        found = {
            provider.colorInterpretation(band): band for band in range(1, layer.bandCount() + 1)
        }
        colours = QgsRaster.ColorInterpretation
        bands = [found.get(kind) for kind in (colours.RedBand, colours.GreenBand, colours.BlueBand)]
        if None not in bands:
            renderer = QgsMultiBandColorRenderer(provider, *bands)
            renderer.setAlphaBand(found.get(colours.AlphaBand, -1))  # the mask of the file
            layer.setRenderer(renderer)
            layer.setDefaultContrastEnhancement()
            layer.triggerRepaint()
