"""The explorer: what recordings tell, in a browser on the user's own machine."""
