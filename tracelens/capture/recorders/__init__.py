"""Recorders: what can be listening while a program runs; one file = one recorder."""
