"""Our nodes and the real ZeroTier core in network namespaces without a way out."""
