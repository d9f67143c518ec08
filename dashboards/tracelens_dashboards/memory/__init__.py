"""The data of the memory page: what the browser draws, as arrays of a few thousand numbers."""
