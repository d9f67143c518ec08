"""Targets: thresholds for metrics of configurations, applied to measured runs."""
