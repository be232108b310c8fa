"""The tap service: sockets for unmodified programs over AF_UNIX."""
