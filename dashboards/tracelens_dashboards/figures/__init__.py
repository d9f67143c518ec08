"""Figures that pages and reports share: from frames of tracelens to plotly figures."""
