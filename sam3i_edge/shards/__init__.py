"""Work in shards: each is kept whole or not at all, and done by one process, several, or a cluster."""
