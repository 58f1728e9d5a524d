"""Reference-free isotropic super-resolution of terabyte fluorescence volumes."""
