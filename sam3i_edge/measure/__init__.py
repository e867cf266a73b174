"""Measures a bundle on this machine: agreement, accuracy, speed, memory, size; and reports it."""
