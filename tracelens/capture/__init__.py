"""From a name, or a command, to a Run folder: one pass and one process per recorder."""
