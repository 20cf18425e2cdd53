from __future__ import annotations

import os

# no test opens a window, whatever the machine; set before anything imports matplotlib
os.environ.setdefault("MPLBACKEND", "Agg")
