"""A page on which a person decides what was not proven: `queue`, `decisions`, `server`, `merge`."""
