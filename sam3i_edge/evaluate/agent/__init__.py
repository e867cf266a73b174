"""A language model that asks the concept level and chooses among masks, beside one pass: see `comparison`."""
