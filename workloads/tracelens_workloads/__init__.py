"""Workloads that tracelens can record by name: one file = one workload."""
