"""Commands: one file = one command; only here is anything printed or a status returned."""
