"""Instructions for every picture of a source: written one by one, kept by shards, joined at the end."""
