"""Masks as run lengths, as pixels of a picture, and beside each other."""
