"""Comparing runs: what each did per step, which rows are the same thing, and what is noise."""
