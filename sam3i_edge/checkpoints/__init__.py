"""Official checkpoints: opened, checked, and turned into our model. Needs torch."""

from sam3i_edge.checkpoints.load import Checkpoint, load_checkpoint, read_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "read_checkpoint"]
