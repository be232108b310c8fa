"""Virtual networks (VL2): what a member of a ZeroTier network does, without any I/O."""
