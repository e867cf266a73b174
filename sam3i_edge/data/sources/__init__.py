"""Annotated pictures of every kind, as scenes."""
