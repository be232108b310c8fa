"""The numbers of the protocol; the same stand in ``native/rpc.h``."""

from __future__ import annotations

MAGIC = 0x5A545831  # 'ZTX1'
MAJOR = 1
ABI = 1  # of the preload library, told in HELLO
ACCEPT_MAGIC = 0x5A545841  # 'ZTXA'
ACCEPT_VERSION = 1

OP_HELLO = 1
OP_SOCKET = 2
OP_BIND = 3
OP_CONNECT = 4
OP_LISTEN = 5
OP_GETSOCKNAME = 6
OP_GETPEERNAME = 7
OP_GETSOCKOPT = 8
OP_SETSOCKOPT = 9
OP_SHUTDOWN = 10
OP_RESOLVE = 11
OP_NAMEINFO = 12
OP_IFADDRS = 13
OP_IOCTL = 14
OP_REVIVE = 15
OP_QUERY = 16
OP_POLICY = 17
OP_CANCEL = 18
OP_NOTE = 19
ANSWER_BIT = 0x80

REQUEST_NONBLOCK = 1  # CONNECT: the descriptor has O_NONBLOCK
REQUEST_NOREPLY = 2  # SETSOCKOPT: a hint, no answer wanted
REQUEST_NO_NODE = 4  # RESOLVE: the node argument was NULL
REQUEST_NO_SERVICE = 8  # RESOLVE: the service argument was NULL

ANSWER_HOST = 1  # the destination is the host's: replace the stand-in, payload holds the options
ANSWER_REVIVE = 2  # CONNECT: ask for a new stand-in with REVIVE and connect again
ANSWER_NATIVE = 4  # SHUTDOWN: the pair itself can express it, call the kernel

FEATURE_STRICT = 1  # what the service cannot carry must fail instead of reaching the host
FEATURE_HOST = 2  # the policy gives some destinations to the host
FEATURE_ASK_END = 4  # no residues here: the end of a stream may be an error, SO_ERROR tells
FEATURE_REPURPOSE = 8  # a stream connection to the address with ".s" behind can become a socket

PAYLOAD_LIMIT = 4096
RESOLVE_LIMIT = 65536  # payload of a RESOLVE answer

KIND_NONE = 0
KIND_STREAM = 1
KIND_DATAGRAM = 2

STATE_NEW = 0
STATE_BOUND = 1
STATE_CONNECTING = 2
STATE_CONNECTED = 3
STATE_LISTENING = 4
STATE_DEAD = 5

POLICY_VIRTUAL = 0
POLICY_HOST = 1
POLICY_DENY = 2

RECORD_MARKER = 1  # accept record: one octet waits in the new socket and has to be read off first

DATAGRAM_ERROR = 1  # an error record: no payload, the low half of time_ns is an errno
DATAGRAM_PKTINFO = 2  # the program has asked for IP_PKTINFO or IPV6_RECVPKTINFO
DATAGRAM_TTL = 4  # ... IP_RECVTTL or IPV6_RECVHOPLIMIT
DATAGRAM_TOS = 8  # ... IP_RECVTOS or IPV6_RECVTCLASS
DATAGRAM_MULTICAST = 64  # the destination is a multicast or broadcast address

AF_INET = 2
AF_INET6 = 10
