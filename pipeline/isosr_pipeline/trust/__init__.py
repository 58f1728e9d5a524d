"""Where a restored volume, blurred once more, does not explain the measured one."""
