"""A provider of QGIS Processing that runs ssdiff-trt."""


def classFactory(iface):
    """The plugin, as QGIS asks for it; there is no interface in qgis_process."""
    from .plugin import Plugin

    return Plugin()
