"""Tables of memory: one file = one table that `tracelens memory` shows."""
