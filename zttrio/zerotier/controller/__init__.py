"""The network controller: records, address assignment, signed configurations, pushes."""

from .controller import Controller
from .events import MemberAsked, MemberConfigured, RecordMissing
from .layer import ControllerLayer
from .records import MemberRecord, NetworkRecord, RecordError

__all__ = [
    "Controller",
    "ControllerLayer",
    "MemberAsked",
    "MemberConfigured",
    "MemberRecord",
    "NetworkRecord",
    "RecordError",
    "RecordMissing",
]
