"""The network controller: records, address assignment, signed configurations, pushes."""

from .layer import ControllerLayer

__all__ = ["ControllerLayer"]
