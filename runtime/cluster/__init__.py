"""Blocks computed by other processes, through dask.distributed."""
