"""The machine that runs this: its profiles, its facts, and what works on it."""
