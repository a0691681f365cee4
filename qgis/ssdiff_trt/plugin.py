"""Registers the provider."""

from qgis.core import QgsApplication, QgsProcessingProvider

from .algorithm import Pansharpen
from .command import DEFAULT, SETTING


class Provider(QgsProcessingProvider):
    """The algorithms of ssdiff-trt."""

    def id(self):
        return "ssdiff_trt"

    def name(self):
        return "ssdiff-trt"

    def load(self):
        """Add the setting with the command, in Settings, Options, Processing, Providers."""
        try:
            from processing.core.ProcessingConfig import ProcessingConfig, Setting
        except ImportError:  # without the Processing plugin there are no settings
            return super().load()
        ProcessingConfig.addSetting(
            Setting(self.name(), SETTING, "Command ssdiff-trt", DEFAULT, valuetype=Setting.FILE)
        )
        ProcessingConfig.readSettings()
        return super().load()

    def loadAlgorithms(self):
        self.addAlgorithm(Pansharpen())


class Plugin:
    """The plugin."""

    def initProcessing(self):
        self.provider = Provider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self):
        self.initProcessing()

    def unload(self):
        QgsApplication.processingRegistry().removeProvider(self.provider)
