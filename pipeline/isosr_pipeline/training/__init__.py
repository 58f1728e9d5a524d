"""Training: crops of stores, the loop, its processes and what it leaves to look at."""
