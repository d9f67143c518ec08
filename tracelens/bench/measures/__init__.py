"""What `tracelens bench ceilings` measures: one file = one thing, in its constant `MEASURE`."""
