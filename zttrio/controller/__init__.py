"""A network controller as a program: records in SQLite, and the local HTTP interface."""

from .service import ControllerService
from .store import Store, StoreError

__all__ = ["ControllerService", "Store", "StoreError"]
