"""Drawn scenes with instructions, and the annotation files they are kept in."""
