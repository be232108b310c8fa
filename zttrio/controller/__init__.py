"""A network controller as a program: records in SQLite, and the local HTTP interface."""

from .store import Store, StoreError

__all__ = ["Store", "StoreError"]
