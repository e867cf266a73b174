"""How good the masks are: `run.evaluate` over annotated images, and the metrics it is made of (NumPy)."""
