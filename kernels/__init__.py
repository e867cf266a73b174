"""Operators of the model, one a module: `from sam3i_edge.kernels.adapter_mlp import adapter_mlp`."""
