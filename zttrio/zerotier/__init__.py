"""ZeroTier, sans-IO: VL1, the encrypted transport between nodes."""
