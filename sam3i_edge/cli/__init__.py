"""The command `sam3i-edge`, one module a verb. Frameworks load inside the verbs, never for `--help`."""
