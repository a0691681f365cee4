"""How fast a machine runs a bundle, and what that takes of memory and energy.

``rounds`` is the whole of a benchmark, ``worker`` what one of its processes measures, ``results``
what comes of it. ``gauges`` and ``environment`` tell of the machine, ``statistics``, ``tables`` and
``plot`` of the numbers.
"""
