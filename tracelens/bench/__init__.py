"""Measuring what a machine can reach: bandwidths, rates of products, launches, collectives."""
