"""Auditing tables of claims: what must follow from what, and what no GPU can do.

A file is read into a `Document` (`reading`), its tables are understood by their headings and by a
mapping (`sheets`), every check of the room `checks` recomputes what must follow, and `report`
makes tables of the verdicts. Numbers are intervals: all that a printed number can stand for.
"""
