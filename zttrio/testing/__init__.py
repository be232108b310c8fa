"""Tools for testing programs on simulated networks."""
