"""Starts unmodified programs behind a front door."""
