"""Joins that every analysis shares: launches, phases, steps and ranges of GPU work."""
