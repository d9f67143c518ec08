"""Measuring on the machine at hand: its ceilings, and (to come) its kernels."""
