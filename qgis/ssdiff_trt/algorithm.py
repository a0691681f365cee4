"""The algorithm: PAN and MS to one raster."""

import shlex

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from .colours import TrueColour
from .command import SETTING, CommandError, find, run


class Pansharpen(QgsProcessingAlgorithm):
    """Runs ``ssdiff-trt run``."""

    PAN, MS, BUNDLE, SHIFT, MORE, OUTPUT = "PAN", "MS", "BUNDLE", "SHIFT", "MORE", "OUTPUT"

    def name(self):
        return "pansharpen"

    def displayName(self):
        return "Pansharpen by diffusion"

    def createInstance(self):
        return Pansharpen()

    def shortHelpString(self):
        return (
            "Fuses a panchromatic raster (PAN) and a multispectral one (MS) with pixels four times "
            "as large into one with the pixels of PAN and the bands of MS. The bands of MS are "
            "blue, green, red, near infrared, or the eight of WorldView.\n\n"
            "The log says what was assumed. What is not so is stated by an option: "
            "--full-scale 10000 for reflectance times 10000, --nodata 0 for empty pixels of "
            "value 0, --bands 3,2,1,4 for bands in another order.\n\n"
            "The command ssdiff-trt runs in its own Python environment; its path is a setting of "
            "the provider. Linux is what it is tested on."
        )

    def initAlgorithm(self, configuration=None):
        self.addParameter(QgsProcessingParameterRasterLayer(self.PAN, "PAN"))
        self.addParameter(QgsProcessingParameterRasterLayer(self.MS, "MS"))
        self.addParameter(
            QgsProcessingParameterString(
                self.BUNDLE, "Bundle: a name or a folder, if not the shipped one", "", optional=True
            )
        )
        self.addParameter(
            QgsProcessingParameterString(
                self.SHIFT, "Shift of MS: auto, none, or rows,columns of PAN", "auto"
            )
        )
        self.addParameter(
            QgsProcessingParameterString(
                self.MORE, "Options, such as --full-scale 10000 --nodata 0", "", optional=True
            )
        )
        self.addParameter(QgsProcessingParameterRasterDestination(self.OUTPUT, "Pansharpened"))

    def processAlgorithm(self, parameters, context, feedback):
        pan, ms = (
            self.parameterAsRasterLayer(parameters, name, context).source()
            for name in (self.PAN, self.MS)
        )
        bundle, shift, more = (
            self.parameterAsString(parameters, name, context).strip()
            for name in (self.BUNDLE, self.SHIFT, self.MORE)
        )
        output = self.parameterAsOutputLayer(parameters, self.OUTPUT, context)
        words = ["run", pan, ms, "-o", output, "--overwrite", "--shift", shift or "auto"]
        if bundle:
            words += ["--bundle", bundle]
        words += _words(more)
        try:
            command = [find(_setting()), *words]
            feedback.pushCommandInfo(shlex.join(command))
            done = run(command, feedback.setProgress, feedback.pushInfo, feedback.isCanceled)
        except CommandError as error:
            raise QgsProcessingException(str(error)) from error
        if not done:
            return {}
        if context.willLoadLayerOnCompletion(output):
            self._colours = TrueColour()  # QGIS keeps no reference to it
            context.layerToLoadOnCompletionDetails(output).setPostProcessor(self._colours)
        return {self.OUTPUT: output}


def _words(text):
    try:
        return shlex.split(text)
    except ValueError as error:
        raise QgsProcessingException(f"The options {text} cannot be read ({error}).") from error


def _setting():
    try:
        from processing.core.ProcessingConfig import ProcessingConfig
    except ImportError:
        return None
    return ProcessingConfig.getSetting(SETTING)
