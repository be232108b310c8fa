"""The network stack: sans-IO TCP/IP, driven by `zttrio.driver`."""
