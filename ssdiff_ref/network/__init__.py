"""SSNet in PyTorch: modules, checkpoints and an inference backend."""

import torch

from ssdiff_trt.runtime.cpus import choose_threads

# PyTorch takes every CPU of the host, whatever a container may use.
torch.set_num_threads(min(torch.get_num_threads(), choose_threads(None)))
