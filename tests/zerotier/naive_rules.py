"""The rules of VL2 once more, slowly, in the words of the specification (9.2 to 9.7).

It shares nothing with `zttrio.zerotier`: it reads octets and follows the text line by line, so that
an agreement of the two means something.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NA = "not applicable"
LENIENT = "true whatever NOT says, and the next drop is skipped"

IP4, ARP, IP6 = 0x0800, 0x0806, 0x86DD


@dataclass
class Scene:
    """A frame, a direction, and what both nodes hold."""

    inbound: bool
    me: bytes
    source: bytes
    destination: bytes
    mac_source: bytes
    mac_destination: bytes
    ethertype: int
    payload: bytes
    own_tags: dict[int, int] = field(default_factory=dict)
    peer_tags: dict[int, int] = field(default_factory=dict)
    own_things: set[bytes] = field(default_factory=set)
    peer_things: set[bytes] = field(default_factory=set)
    flags: int = 0
    sixplane: bytes | None = None  # ours, if it is among our addresses
    rfc4193: bytes | None = None
    own_capabilities: list[bytes] = field(default_factory=list)  # rule lists, ascending
    peer_capabilities: list[bytes] = field(default_factory=list)


def number(octets: bytes) -> int:
    """Big-endian."""
    value = 0
    for octet in octets:
        value = value * 256 + octet
    return value


def evaluate(
    rules: bytes, scene: Scene
) -> tuple[str, bytes | None, tuple[bytes, int, bool] | None]:
    """The result, the new destination, and the copy order (9.2)."""
    state = {"matched": True, "super": False, "skip_drop": False}
    copy = None
    rest = rules
    while rest:
        kind, length = rest[0], rest[1]
        value, rest = rest[2 : 2 + length], rest[2 + length :]
        is_not, is_or, kind = kind >= 128, kind % 128 >= 64, kind % 64
        if kind > 15:
            if not state["matched"] and not is_or:
                continue
            answer = match(kind, value, scene, state)
            if answer == LENIENT:
                state["skip_drop"] = True
                true = True
            elif answer == NA:
                true = False
            else:
                true = bool(answer) != is_not
            if is_or:
                state["matched"] = state["matched"] or true
            else:
                state["matched"] = state["matched"] and true
            continue
        target = value[3:8] if kind in (2, 3, 4) else None
        if not state["matched"]:
            if scene.inbound and target == scene.me:
                state["super"] = True
            state["matched"] = True
        elif kind == 0:
            if not state["skip_drop"]:
                return "DROP", None, copy
            state["skip_drop"] = False
        elif kind == 1:
            return "SUPER_ACCEPT" if state["super"] else "ACCEPT", None, copy
        elif kind == 6:
            return "ACCEPT", None, copy
        elif kind == 5:
            return "NO_MATCH", None, copy
        elif target is None or target == scene.source:
            continue
        elif target == scene.me:
            if scene.inbound:
                return "SUPER_ACCEPT", None, copy
        elif target == scene.destination:
            continue
        elif kind == 4:
            return "REDIRECT", target, copy
        else:
            wanted = number(value[12:14])
            whole = len(scene.payload)
            copy = (target, min(wanted, whole) if wanted else whole, kind == 3)
    return "NO_MATCH", None, copy


def match(kind: int, v: bytes, scene: Scene, state: dict[str, bool]) -> bool | str:
    """What one match says, before NOT (9.3)."""
    frame, ethertype = scene.payload, scene.ethertype
    whole4 = ethertype == IP4 and len(frame) >= 20
    whole6 = ethertype == IP6 and len(frame) >= 40
    match kind:
        case 24:
            return v[:5] == scene.source
        case 25:
            return v[:5] == scene.destination
        case 26:
            return v[:2] == b"\0\0"
        case 27 | 28:
            return v[0] == 0
        case 29:
            return v[:6] == scene.mac_source
        case 30:
            return v[:6] == scene.mac_destination
        case 31 | 32:
            if not whole4:
                return NA
            address = frame[12:16] if kind == 31 else frame[16:20]
            bits = min(v[4], 32)
            return f"{number(address):032b}"[:bits] == f"{number(v[:4]):032b}"[:bits]
        case 33 | 34:
            if not whole6:
                return NA
            address = frame[8:24] if kind == 33 else frame[24:40]
            bits = min(v[16], 128)
            return f"{number(address):0128b}"[:bits].ljust(128, "0") == f"{number(v[:16]):0128b}"
        case 35:
            if whole4:
                return v[1] <= (frame[1] & v[0]) <= v[2]
            if whole6:
                traffic_class = (frame[0] % 16) * 16 + frame[1] // 16
                return v[1] <= (traffic_class & v[0]) <= v[2]
            return NA
        case 36:
            if whole4:
                return frame[9] == v[0]
            if whole6:
                found = walk(frame)
                return NA if found is None else found[0] == v[0]
            return NA
        case 37:
            return number(v[:2]) == ethertype
        case 38:
            return icmp(v, scene)
        case 39 | 40:
            return port(number(v[:2]), number(v[2:4]), 2 if kind == 40 else 0, scene)
        case 41:
            return characteristics(scene) & number(v[:8]) > 0
        case 42:
            return number(v[:2]) <= len(frame) <= number(v[2:4])
        case 43:
            return number(v[:4]) == 2**32 - 1  # the tests use this and none that never is reached
        case 44 | 45 | 46 | 47 | 48 | 49 | 50:
            return tags(kind, number(v[:4]), number(v[4:8]), scene, state)
        case 51:
            return integer(v, frame)
        case _:
            return scene.flags & 8 > 0


def walk(frame: bytes) -> tuple[int, int] | None:
    """Final header and its position."""
    following, at = frame[6], 40
    while following in (0, 43, 60, 135):
        if at + 8 > len(frame):
            return None
        following, at = frame[at], at + 8 + 8 * frame[at + 1]
        if at > len(frame):
            return None
    return following, at


def header(scene: Scene) -> tuple[int, int] | None:
    """Protocol and position of the transport header of whole IPv4 and IPv6 frames."""
    frame = scene.payload
    if scene.ethertype == IP4 and len(frame) >= 20:
        return frame[9], 4 * (frame[0] & 15)
    if scene.ethertype == IP6 and len(frame) >= 40:
        return walk(frame)
    return None


def icmp(v: bytes, scene: Scene) -> bool | str:
    found = header(scene)
    if found is None or found[0] != (1 if scene.ethertype == IP4 else 58):
        return NA
    message = scene.payload[found[1] :]
    if len(message) < 2 or message[0] != v[0]:
        return NA
    return message[1] == v[1] if v[2] & 1 else True


def port(low: int, high: int, where: int, scene: Scene) -> bool | str:
    found = header(scene)
    if found is None:
        return NA
    protocol, at = found
    if protocol not in (6, 17, 0x84, 0x88) or len(scene.payload) <= at + 4:
        return False
    value = number(scene.payload[at + where : at + where + 2])
    if scene.ethertype == IP6 and value == 0:
        return False
    return low <= value <= high


def characteristics(scene: Scene) -> int:
    """The word of 9.4."""
    word = 0
    if scene.inbound:
        word |= 2**63
    if scene.mac_destination[0] % 2:
        word |= 2**62
    if set(scene.mac_destination) == {255}:
        word |= 2**61
    things = scene.peer_things if scene.inbound else scene.own_things
    if owns_source(scene, things):
        word |= 2**60
    if scene.mac_source in things:
        word |= 2**59
    found = header(scene)
    if found is not None and found[0] == 6:
        segment = scene.payload[found[1] :]
        if len(segment) > (13 if scene.ethertype == IP4 else 14):
            word |= (segment[12] % 16) * 256 + segment[13]
    return word


def owns_source(scene: Scene, things: set[bytes]) -> bool:
    frame = scene.payload
    if scene.ethertype == IP4 and len(frame) >= 20:
        ip = frame[12:16]
    elif scene.ethertype == ARP and len(frame) >= 28:
        ip = frame[14:18]
    elif scene.ethertype == IP6 and len(frame) >= 40:
        ip = frame[8:24]
        if frame[6] == 58 and len(frame) >= 64:
            if frame[40] == 135:
                return True
            if frame[40] == 136:
                ip = frame[48:64]
    else:
        return False
    if ip in things:
        return True
    if scene.inbound and scene.flags & 4 and len(ip) == 16:
        if scene.sixplane is not None and scene.sixplane[:5] == ip[:5]:
            return True
        if scene.rfc4193 is not None and scene.rfc4193[:11] == ip[:11]:
            return True
    return False


def tags(kind: int, tag_id: int, value: int, scene: Scene, state: dict[str, bool]) -> bool | str:
    left, right = scene.own_tags.get(tag_id), scene.peer_tags.get(tag_id)
    if kind in (49, 50):
        if state["super"]:
            return LENIENT
        if (kind == 49) != scene.inbound:  # it is about us
            return NA if left is None else left == value
        if right is None:
            return NA if kind == 49 else LENIENT
        return right == value
    if left is None:
        return NA
    if right is None:
        return NA if scene.inbound and not state["super"] else LENIENT
    return {
        44: max(left, right) - min(left, right) <= value,
        45: left & right == value,
        46: left | right == value,
        47: left ^ right == value,
        48: left == value and right == value,
    }[kind]


def integer(v: bytes, frame: bytes) -> bool:
    low = number(v[:8])
    high = (low + (number(v[8:16]) - low) % 2**32) % 2**64
    index = number(v[16:18])
    bits = v[18] % 64 + 1
    size = -(-bits // 8)
    if v[18] < 128:
        window = frame[index + 8 - size : index + 8]
        value = number(window) % 2**bits if len(window) == size else 0
    else:
        window = frame[index : index + size]
        value = number(window[::-1]) // 2 ** (8 * size - bits) if len(window) == size else 0
    return low <= value <= high


def decide(
    rules: bytes, scene: Scene
) -> tuple[int, bytes | None, tuple[tuple[bytes, int, bool], ...]]:
    """Accepted or not, the new destination, the copies (9.7)."""
    result, redirect, base_copy = evaluate(rules, scene)
    copies = [base_copy]
    if result == "NO_MATCH":
        for capability in scene.peer_capabilities if scene.inbound else scene.own_capabilities:
            result, redirect, copy = evaluate(capability, scene)
            if result not in ("NO_MATCH", "DROP"):
                copies.insert(0, copy)
                break
    if result in ("NO_MATCH", "DROP"):
        return 0, None, ()
    accepted = 2 if result == "SUPER_ACCEPT" else 1
    return accepted, redirect, tuple(copy for copy in copies if copy is not None)
