"""Budgets of the design, measured beside the peers on the same files in the same run."""
