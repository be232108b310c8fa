"""ZeroTier VL1 and VL2: sans-IO."""
