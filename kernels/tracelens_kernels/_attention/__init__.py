"""Attention on the device: forward and backward passes, portable and for Hopper alone."""
