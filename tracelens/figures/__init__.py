"""Figures of what tables hold, drawn by plotly, which is an extra: tracelens-gpu[images]."""
