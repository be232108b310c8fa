/*
 * The programs that speak to the resolver library itself: res_query and its kin.  Their questions
 * for addresses and names are answered as everybody's are, in a DNS message made here (RFC 1035);
 * for other record types there is no data.
 */
#include "names.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <stdlib.h>

#define TTL 60 /* arbitrary: addresses on a virtual network change seldom */

struct message {
    uint8_t *at;
    size_t used, size;
};

static bool put(struct message *message, const void *data, size_t length) {
    if (message->size - message->used < length)
        return false;
    memcpy(message->at + message->used, data, length);
    message->used += length;
    return true;
}

static bool put16(struct message *message, unsigned number) {
    uint8_t octets[2] = {(uint8_t)(number >> 8), (uint8_t)number};
    return put(message, octets, sizeof octets);
}

/* A name as labels; false if it is not one (RFC 1035 2.3.4). */
static bool put_name(struct message *message, const char *name) {
    while (*name != '\0') {
        size_t length = strcspn(name, ".");
        uint8_t octet = (uint8_t)length;
        if (length == 0 || length > 63 || !put(message, &octet, 1) || !put(message, name, length))
            return false;
        name += length + (name[length] == '.');
    }
    return put(message, "", 1);
}

static bool put_answer(struct message *message, unsigned type, const void *data, size_t length) {
    return put16(message, 0xC00C) && /* the name of the question */
           put16(message, type) && put16(message, ns_c_in) && put16(message, 0) &&
           put16(message, TTL) && put16(message, (unsigned)length) && put(message, data, length);
}

static int put_addresses(struct message *message, const char *name, unsigned type, int *error) {
    int family = type == ns_t_a ? AF_INET : AF_INET6, count = 0;
    struct zt_addresses found = zt_resolve(name, NULL, family, 0);
    *error = found.error;
    for (uint32_t at = 0; found.error == 0 && at < found.count; at++) {
        const struct zt_resolve_row *row = &found.rows[at];
        if (row->type != SOCK_STREAM || row->family != family)
            continue;
        const uint8_t *address =
            row->address + (family == AF_INET ? offsetof(struct sockaddr_in, sin_addr)
                                              : offsetof(struct sockaddr_in6, sin6_addr));
        if (!put_answer(message, type, address, family == AF_INET ? 4 : 16))
            break;
        count++;
    }
    if (found.error == 0)
        free(found.block);
    return count;
}

/* d.c.b.a.in-addr.arpa as an address; IPv6's nibbles likewise. */
static socklen_t reverse_address(const char *name, struct sockaddr_in6 *room) {
    unsigned a, b, c, d;
    char tail[16];
    if (sscanf(name, "%u.%u.%u.%u.%15s", &d, &c, &b, &a, tail) == 5 &&
        (strcasecmp(tail, "in-addr.arpa") == 0 || strcasecmp(tail, "in-addr.arpa.") == 0) &&
        (a | b | c | d) < 256) {
        struct sockaddr_in four = {.sin_family = AF_INET};
        four.sin_addr.s_addr = htonl(a << 24 | b << 16 | c << 8 | d);
        memcpy(room, &four, sizeof four);
        return sizeof four;
    }
    *room = (struct sockaddr_in6){.sin6_family = AF_INET6};
    for (int nibble = 0; nibble < 32; nibble++, name += 2) {
        unsigned digit;
        if (name[0] == '\0' || name[1] != '.' || sscanf(name, "%1x", &digit) != 1)
            return 0;
        room->sin6_addr.s6_addr[15 - nibble / 2] |= (uint8_t)(digit << (nibble % 2 * 4));
    }
    return strncasecmp(name, "ip6.arpa", 8) == 0 ? sizeof *room : 0;
}

static int put_pointer(struct message *message, const char *name, int *error) {
    struct sockaddr_in6 address;
    socklen_t length = reverse_address(name, &address);
    char texts[1024];
    memset(texts, 0, sizeof texts);
    *error = length == 0 ? EAI_NONAME
                         : zt_name_of(&address, length, NI_NAMEREQD, texts, sizeof texts - 2);
    if (*error != 0)
        return 0;
    uint8_t data[260];
    struct message encoded = {.at = data, .size = sizeof data};
    return put_name(&encoded, texts) && put_answer(message, ns_t_ptr, data, encoded.used);
}

/* Fills in a whole answer; its length, or 0 if there was no room for the question. */
static size_t answer_question(const char *name, unsigned type, unsigned class, unsigned id,
                              uint8_t *room, size_t size, int *error) {
    struct message message = {.at = room, .used = 0, .size = size};
    static const uint8_t head[12] = {[2] = 0x81, [3] = 0x80, [5] = 1}; /* QR RD RA, one question */
    if (!put(&message, head, sizeof head) || !put_name(&message, name) ||
        !put16(&message, type) || !put16(&message, class))
        return 0;
    int count = 0;
    *error = 0;
    if (class == ns_c_in && (type == ns_t_a || type == ns_t_aaaa))
        count = put_addresses(&message, name, type, error);
    else if (class == ns_c_in && type == ns_t_ptr)
        count = put_pointer(&message, name, error);
    else
        *error = -5; /* EAI_NODATA */
    if (*error == 0 && count == 0)
        *error = -5;
    room[0] = (uint8_t)(id >> 8);
    room[1] = (uint8_t)id;
    room[7] = (uint8_t)count;
    int reason = zt_host_error(*error);
    room[3] |= reason == HOST_NOT_FOUND ? 3 : reason == TRY_AGAIN ? 2 : 0; /* NXDOMAIN, SERVFAIL */
    return message.used;
}

static int query(const char *name, int class, int type, uint8_t *room, int size) {
    int error;
    size_t length = size <= 0 ? 0
                              : answer_question(name, (unsigned)type, (unsigned)class, 1, room,
                                                (size_t)size, &error);
    if (length == 0) {
        h_errno = NO_RECOVERY;
        return -1;
    }
    if (error != 0) {
        h_errno = zt_host_error(error);
        return -1;
    }
    return (int)length;
}

EXPORT(int, zt_res_query, "res_query",
       (const char *name, int class, int type, uint8_t *room, int size)) {
    return query(name, class, type, room, size);
}
ALIAS(zt_res_query, "res_query", __res_query);
ALIAS(zt_res_query, "res_query", res_search);
ALIAS(zt_res_query, "res_query", __res_search);

EXPORT(int, zt_res_nquery, "res_nquery",
       (void *state, const char *name, int class, int type, uint8_t *room, int size)) {
    (void)state;
    return query(name, class, type, room, size);
}
ALIAS(zt_res_nquery, "res_nquery", __res_nquery);
ALIAS(zt_res_nquery, "res_nquery", res_nsearch);
ALIAS(zt_res_nquery, "res_nquery", __res_nsearch);

static int query_domain(const char *name, const char *domain, int class, int type, uint8_t *room,
                        int size) {
    char whole[1024];
    if (domain == NULL || *domain == '\0')
        return query(name, class, type, room, size);
    if (snprintf(whole, sizeof whole, "%s.%s", name, domain) >= (int)sizeof whole) {
        h_errno = NO_RECOVERY;
        return -1;
    }
    return query(whole, class, type, room, size);
}

EXPORT(int, zt_res_querydomain, "res_querydomain",
       (const char *name, const char *domain, int class, int type, uint8_t *room, int size)) {
    return query_domain(name, domain, class, type, room, size);
}
ALIAS(zt_res_querydomain, "res_querydomain", __res_querydomain);

EXPORT(int, zt_res_nquerydomain, "res_nquerydomain",
       (void *state, const char *name, const char *domain, int class, int type, uint8_t *room,
        int size)) {
    (void)state;
    return query_domain(name, domain, class, type, room, size);
}
ALIAS(zt_res_nquerydomain, "res_nquerydomain", __res_nquerydomain);

/* The question of a message somebody made: its name, type and class; false if it has none. */
static bool read_question(const uint8_t *message, int length, char *name, size_t size,
                          unsigned *type, unsigned *class) {
    size_t at = 12, used = 0, end = length < 0 ? 0 : (size_t)length;
    if (end < 17 || message[4] != 0 || message[5] != 1)
        return false;
    while (at < end && message[at] != 0) {
        size_t label = message[at++];
        if (label > 63 || at + label > end || used + label + 2 > size)
            return false;
        memcpy(name + used, message + at, label);
        used += label;
        name[used++] = '.';
        at += label;
    }
    if (at + 5 > end)
        return false;
    name[used > 0 ? used - 1 : 0] = '\0';
    *type = (unsigned)message[at + 1] << 8 | message[at + 2];
    *class = (unsigned)message[at + 3] << 8 | message[at + 4];
    return true;
}

static int send_message(const uint8_t *message, int length, uint8_t *room, int size) {
    char name[1024];
    unsigned type, class;
    int error;
    if (size <= 0 || !read_question(message, length, name, sizeof name, &type, &class)) {
        errno = EINVAL;
        return -1;
    }
    unsigned id = (unsigned)message[0] << 8 | message[1];
    size_t used = answer_question(name, type, class, id, room, (size_t)size, &error);
    if (used == 0) {
        errno = EMSGSIZE;
        return -1;
    }
    return (int)used;
}

EXPORT(int, zt_res_send, "res_send",
       (const uint8_t *message, int length, uint8_t *room, int size)) {
    return send_message(message, length, room, size);
}
ALIAS(zt_res_send, "res_send", __res_send);

EXPORT(int, zt_res_nsend, "res_nsend",
       (void *state, const uint8_t *message, int length, uint8_t *room, int size)) {
    (void)state;
    return send_message(message, length, room, size);
}
ALIAS(zt_res_nsend, "res_nsend", __res_nsend);
