"""Benchmark of a bundle on this machine: latency, throughput, memory, load time and energy.

``rounds`` runs a benchmark, ``worker`` is what each of its processes measures, ``results`` holds
the data model and its JSON format. ``gauges`` and ``environment`` read the machine's state;
``statistics``, ``tables`` and ``plot`` evaluate and display the measurements.
"""
