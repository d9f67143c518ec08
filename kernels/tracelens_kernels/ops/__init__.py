"""The kernels, one file each, found by their names (`tracelens list kernels`)."""
