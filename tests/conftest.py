from __future__ import annotations

import os

# no test opens a window, whatever the machine; set before anything imports matplotlib
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

if not torch.cuda.is_available():
    # kernels are then run by triton's interpreter; read when they are first imported
    os.environ.setdefault("TRITON_INTERPRET", "1")
