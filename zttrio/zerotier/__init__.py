"""ZeroTier, sans-IO: VL1 is here, VL2 in `network`, and who decides about it in `controller`."""
