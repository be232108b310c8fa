"""The ``zttrio`` command."""
