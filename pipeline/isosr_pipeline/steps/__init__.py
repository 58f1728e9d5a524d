"""The steps that a user runs, each a function that reads like its description."""
