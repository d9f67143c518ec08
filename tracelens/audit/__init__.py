"""Auditing tables of claims: what must follow from what, and what no GPU can do."""
