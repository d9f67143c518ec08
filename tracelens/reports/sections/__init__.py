"""Sections of a report: one file = one section, from what is known of the runs to its blocks."""
