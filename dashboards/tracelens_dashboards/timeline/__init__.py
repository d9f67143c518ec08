"""The timeline's server side: rows, what of them is visible, and what is asked about it."""

from tracelens_dashboards.timeline.api import register

__all__ = ["register"]
