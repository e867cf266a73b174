"""LiteRT: the converter, what it leaves of integer weights, and the variant."""
