"""Bytes to headers and back: sans-IO, no state."""
