"""Training: `from sam3i_edge.train.trainer import run_training`; the settings are in `config`."""
