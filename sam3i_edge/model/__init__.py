"""SAM3-I in PyTorch, written to be exported: `from sam3i_edge.model.sam3i import SAM3I`."""
