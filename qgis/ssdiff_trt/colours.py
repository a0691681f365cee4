"""Showing a result in true colour: QGIS takes its first three bands for red, green and blue."""

from qgis.core import (
    QgsMultiBandColorRenderer,
    QgsProcessingLayerPostProcessorInterface,
    QgsRaster,
)

_COLOURS = ("RedBand", "GreenBand", "BlueBand")


class TrueColour(QgsProcessingLayerPostProcessorInterface):
    """Chooses the bands of a loaded layer by their colour interpretation."""

    def postProcessLayer(self, layer, context, feedback):
        provider = layer.dataProvider()
        found = {
            provider.colorInterpretation(band): band for band in range(1, layer.bandCount() + 1)
        }
        kinds = [getattr(QgsRaster, name, None) for name in _COLOURS]
        kinds = [
            getattr(QgsRaster.ColorInterpretation, name) if kind is None else kind
            for kind, name in zip(kinds, _COLOURS, strict=False)
        ]
        bands = [found.get(kind) for kind in kinds]
        if None not in bands:
            layer.setRenderer(QgsMultiBandColorRenderer(provider, *bands))
            layer.setDefaultContrastEnhancement()
            layer.triggerRepaint()
