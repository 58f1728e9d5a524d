"""``python -m isosr_pipeline``: the same as the console script."""

from isosr_pipeline.cli import main

main()
