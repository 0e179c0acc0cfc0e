"""Where the project lies, and what may lie beside it."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Real clips lie beside the project where it is developed; no test needs them to be there.
FMA_SAMPLE = ROOT.parent / "shared" / "fma_sample"
