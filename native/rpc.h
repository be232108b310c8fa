/*
 * Messages between intercept and tap service: the same layouts and numbers as zttrio/tap/rpc.py.
 *
 * A test reads this file and compares.  It understands "#define ZT_NAME number" and structures of
 * plain members and arrays, nothing more, so keep to these.
 */
#ifndef ZTTRIO_RPC_H
#define ZTTRIO_RPC_H

#include <stdint.h>

#define ZT_MAGIC 0x5A545831
#define ZT_MAJOR 1
#define ZT_ABI 1
#define ZT_ACCEPT_MAGIC 0x5A545841
#define ZT_ACCEPT_VERSION 1

#define ZT_OP_HELLO 1
#define ZT_OP_SOCKET 2
#define ZT_OP_BIND 3
#define ZT_OP_CONNECT 4
#define ZT_OP_LISTEN 5
#define ZT_OP_GETSOCKNAME 6
#define ZT_OP_GETPEERNAME 7
#define ZT_OP_GETSOCKOPT 8
#define ZT_OP_SETSOCKOPT 9
#define ZT_OP_SHUTDOWN 10
#define ZT_OP_RESOLVE 11
#define ZT_OP_NAMEINFO 12
#define ZT_OP_IFADDRS 13
#define ZT_OP_IOCTL 14
#define ZT_OP_REVIVE 15
#define ZT_OP_QUERY 16
#define ZT_OP_POLICY 17
#define ZT_OP_CANCEL 18
#define ZT_OP_NOTE 19
#define ZT_ANSWER_BIT 0x80

#define ZT_REQUEST_NONBLOCK 1
#define ZT_REQUEST_NOREPLY 2
#define ZT_REQUEST_NO_NODE 4
#define ZT_REQUEST_NO_SERVICE 8

#define ZT_ANSWER_HOST 1
#define ZT_ANSWER_REVIVE 2
#define ZT_ANSWER_NATIVE 4

#define ZT_FEATURE_STRICT 1
#define ZT_FEATURE_HOST 2
#define ZT_FEATURE_ASK_END 4
#define ZT_FEATURE_REPURPOSE 8

#define ZT_PAYLOAD_LIMIT 4096
#define ZT_RESOLVE_LIMIT 65536

#define ZT_KIND_NONE 0
#define ZT_KIND_STREAM 1
#define ZT_KIND_DATAGRAM 2

#define ZT_STATE_NEW 0
#define ZT_STATE_BOUND 1
#define ZT_STATE_CONNECTING 2
#define ZT_STATE_CONNECTED 3
#define ZT_STATE_LISTENING 4
#define ZT_STATE_DEAD 5

#define ZT_POLICY_VIRTUAL 0
#define ZT_POLICY_HOST 1
#define ZT_POLICY_DENY 2

#define ZT_RECORD_MARKER 1

#define ZT_DATAGRAM_ERROR 1
#define ZT_DATAGRAM_PKTINFO 2
#define ZT_DATAGRAM_TTL 4
#define ZT_DATAGRAM_TOS 8
#define ZT_DATAGRAM_MULTICAST 64

/* A request or an answer; behind it `length` octets of payload.  In an answer `a` is what the libc
 * function returns and `b` is an errno value, valid if `a` is negative. */
struct zt_header {
    uint32_t magic;
    uint8_t major;
    uint8_t op;
    uint16_t flags;
    uint32_t seq;
    uint32_t length;
    uint64_t sock;
    int32_t a;
    int32_t b;
};

/* What comes with the descriptor of an accepted connection, on the listening stand-in. */
struct zt_accept_record {
    uint32_t magic;
    uint16_t version;
    uint16_t flags;
    uint64_t cookie;
    uint16_t peer_length;
    uint16_t local_length;
    uint32_t reserved;
    uint8_t peer[28];
    uint8_t local[28];
};

/* In front of every message on a datagram stand-in, both ways. */
struct zt_datagram_header {
    uint16_t flags;
    uint16_t peer_length;
    uint8_t peer[28];
    uint16_t local_length;
    uint8_t ttl;
    uint8_t tos;
    uint8_t local[16];
    uint32_t ifindex;
    uint64_t time_ns;
};

/* HELLO; behind it the path of the program and its argv[0], each with a NUL. */
struct zt_hello_request {
    int32_t pid;
    int32_t ppid;
};

struct zt_hello_answer {
    uint64_t features;
    int32_t pid;
    int32_t reserved;
    char version[24];
    char network[32];
    uint8_t policy[32];
};

/* RESOLVE's answer: this, `count` rows, then the canonical name. */
struct zt_resolve_head {
    uint32_t count;
    uint32_t canonical_length;
};

struct zt_resolve_row {
    uint16_t family;
    uint16_t type;
    uint16_t protocol;
    uint16_t length;
    uint8_t address[28];
};

/* IFADDRS' answer: any number of these. */
struct zt_interface_row {
    char name[16];
    uint32_t index;
    uint32_t flags;
    uint32_t mtu;
    uint8_t mac[6];
    uint16_t length;
    uint8_t address[28];
    uint8_t netmask[28];
    uint8_t broadcast[28];
};

/* QUERY's answer: one for each cookie asked about. */
struct zt_query_row {
    uint8_t kind;
    uint8_t state;
    uint16_t domain;
    uint16_t protocol;
    uint16_t reserved;
};

/* In the payload of an answer with ZT_ANSWER_HOST: a setting to repeat, then `length` octets. */
struct zt_option {
    int32_t level;
    int32_t option;
    uint32_t length;
};

_Static_assert(sizeof(struct zt_header) == 32, "header");
_Static_assert(sizeof(struct zt_accept_record) == 80, "accept record");
_Static_assert(sizeof(struct zt_datagram_header) == 64, "datagram header");
_Static_assert(sizeof(struct zt_hello_request) == 8, "hello");
_Static_assert(sizeof(struct zt_hello_answer) == 104, "hello answer");
_Static_assert(sizeof(struct zt_resolve_head) == 8, "resolve head");
_Static_assert(sizeof(struct zt_resolve_row) == 36, "resolve row");
_Static_assert(sizeof(struct zt_interface_row) == 120, "interface row");
_Static_assert(sizeof(struct zt_query_row) == 8, "query row");
_Static_assert(sizeof(struct zt_option) == 12, "option");

#endif
