"""The blur of a volume: told from it, from beads or from a file, and what is made with it."""
