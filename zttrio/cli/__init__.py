"""The ``zttrio`` command: one module per sub-command, put together in `zttrio.cli.main`."""
