"""Analyses of memory: one file = one question, from a Memory to a frame."""
