"""The artifact on disk: what it lists, how it is written and verified, where it is fetched from."""
