"""A language model that words what is proven, and never decides: `rewriting` is where to begin."""
