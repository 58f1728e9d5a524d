"""The command line: parse, call one library function, map errors to exit codes."""

from isosr_pipeline.cli.main import main

__all__ = ["main"]
