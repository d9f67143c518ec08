"""Device code of the matrix products: dense, scaled, and grouped by expert."""
