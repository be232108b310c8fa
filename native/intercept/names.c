/*
 * Names and interfaces.
 *
 * The C library's own resolver makes its sockets through internal calls that nobody can stand in
 * front of, so a preload that wraps only socket() sends every name to the host's network.  Here
 * the service answers.  Results are allocated exactly as glibc does, so its freeaddrinfo(),
 * freeifaddrs() and if_freenameindex() fit.
 */
#include "shim.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdlib.h>

#include "names.h"

/* ---- asking ---- */

struct zt_addresses zt_resolve(const char *node, const char *service, int family, int flags) {
    struct zt_addresses result = {.error = EAI_MEMORY};
    size_t node_length = node != NULL ? strlen(node) : 0;
    size_t service_length = service != NULL ? strlen(service) : 0;
    char payload[ZT_PAYLOAD_LIMIT];
    if (node_length + service_length + 2 > sizeof payload) {
        result.error = EAI_NONAME;
        return result;
    }
    memcpy(payload, node != NULL ? node : "", node_length + 1);
    memcpy(payload + node_length + 1, service != NULL ? service : "", service_length + 1);
    result.block = malloc(ZT_RESOLVE_LIMIT);
    if (result.block == NULL)
        return result;
    struct call call;
    int outcome;
    do { /* like the C library's resolver, start again after a signal */
        call = (struct call){
            .op = ZT_OP_RESOLVE,
            .flags = (uint16_t)((node == NULL ? ZT_REQUEST_NO_NODE : 0) |
                                (service == NULL ? ZT_REQUEST_NO_SERVICE : 0)),
            .a = flags,
            .b = family,
            .payload = payload,
            .length = (uint32_t)(node_length + service_length + 2),
            .is_blocking = true,
            .timeout_ms = -1,
            .room = result.block,
            .room_size = ZT_RESOLVE_LIMIT,
        };
        outcome = zt_call(&call);
    } while (outcome == CALL_EINTR);
    struct zt_resolve_head head;
    if (outcome != CALL_OK) {
        result.error = EAI_AGAIN; /* no service, so nobody can know */
    } else if (call.ret != 0) {
        result.error = call.ret;
        errno = call.ret == EAI_SYSTEM ? call.err : errno;
    } else if (call.answer_length < sizeof head || call.answer_length > ZT_RESOLVE_LIMIT) {
        result.error = EAI_FAIL;
    } else {
        memcpy(&head, result.block, sizeof head);
        size_t names_at = sizeof head + (size_t)head.count * sizeof(struct zt_resolve_row);
        if (names_at + head.canonical_length != call.answer_length) {
            result.error = EAI_FAIL;
        } else {
            result.error = 0;
            result.rows = (const struct zt_resolve_row *)((char *)result.block + sizeof head);
            result.count = head.count;
            result.canonical = (char *)result.block + names_at;
            result.canonical_length = head.canonical_length;
            return result;
        }
    }
    free(result.block);
    result.block = NULL;
    return result;
}

int zt_name_of(const void *address, socklen_t length, int flags, char *room, size_t size) {
    struct call call;
    int outcome;
    do {
        call = (struct call){
            .op = ZT_OP_NAMEINFO,
            .a = flags,
            .payload = address,
            .length = length,
            .is_blocking = true,
            .timeout_ms = -1,
            .room = room,
            .room_size = (uint32_t)size,
        };
        outcome = zt_call(&call);
    } while (outcome == CALL_EINTR);
    if (outcome != CALL_OK)
        return EAI_AGAIN;
    if (call.ret != 0)
        return call.ret;
    return call.answer_length <= size ? 0 : EAI_OVERFLOW;
}

/* ---- getaddrinfo, getnameinfo ---- */

#define KNOWN_FLAGS                                                                                \
    (AI_PASSIVE | AI_CANONNAME | AI_NUMERICHOST | AI_V4MAPPED | AI_ALL | AI_ADDRCONFIG |          \
     AI_NUMERICSERV | 0x0040 | 0x0080 | 0x0100 | 0x0200) /* the last four: AI_IDN and its kin */

static bool is_wanted(const struct zt_resolve_row *row, const struct addrinfo *hints) {
    if (row->length > sizeof row->address)
        return false;
    return (hints->ai_socktype == 0 || hints->ai_socktype == row->type) &&
           (hints->ai_protocol == 0 || hints->ai_protocol == row->protocol || row->protocol == 0);
}

static struct addrinfo *make_row(const struct zt_resolve_row *row, const struct addrinfo *hints) {
    struct addrinfo *made = calloc(1, sizeof *made + row->length);
    if (made == NULL)
        return NULL;
    *made = (struct addrinfo){
        .ai_flags = hints->ai_flags,
        .ai_family = row->family,
        .ai_socktype = row->type,
        .ai_protocol = row->protocol != 0 ? row->protocol : hints->ai_protocol,
        .ai_addrlen = row->length,
        .ai_addr = (struct sockaddr *)(made + 1),
    };
    memcpy(made->ai_addr, row->address, row->length);
    return made;
}

EXPORT(int, zt_getaddrinfo, "getaddrinfo",
       (const char *node, const char *service, const struct addrinfo *given,
        struct addrinfo **result)) {
    static const struct addrinfo none = {.ai_flags = AI_V4MAPPED | AI_ADDRCONFIG};
    const struct addrinfo *hints = given != NULL ? given : &none;
    if (node != NULL && strcmp(node, "*") == 0)
        node = NULL;
    if (service != NULL && strcmp(service, "*") == 0)
        service = NULL;
    if (node == NULL && service == NULL)
        return EAI_NONAME;
    if (hints->ai_flags & ~KNOWN_FLAGS || (hints->ai_flags & AI_CANONNAME && node == NULL))
        return EAI_BADFLAGS;
    if (hints->ai_family != AF_UNSPEC && hints->ai_family != AF_INET &&
        hints->ai_family != AF_INET6)
        return EAI_FAMILY;
    if (hints->ai_socktype < 0 || hints->ai_socktype > SOCK_RAW)
        return EAI_SOCKTYPE;
    struct zt_addresses found = zt_resolve(node, service, hints->ai_family, hints->ai_flags);
    if (found.error != 0)
        return found.error;
    struct addrinfo *first = NULL, **next = &first;
    int error = 0;
    for (uint32_t at = 0; at < found.count && error == 0; at++) {
        if (!is_wanted(&found.rows[at], hints))
            continue;
        *next = make_row(&found.rows[at], hints);
        if (*next == NULL)
            error = EAI_MEMORY;
        else
            next = &(*next)->ai_next;
    }
    if (error == 0 && first == NULL)
        error = hints->ai_protocol != 0 ? EAI_SOCKTYPE : EAI_SERVICE;
    if (error == 0 && hints->ai_flags & AI_CANONNAME) {
        first->ai_canonname = strndup(found.canonical, found.canonical_length);
        error = first->ai_canonname == NULL ? EAI_MEMORY : 0;
    }
    free(found.block);
    if (error != 0) {
        if (first != NULL)
            freeaddrinfo(first);
        return error;
    }
    *result = first;
    return 0;
}

/* Its threads would resolve with the C library's own resolver. */
EXPORT(int, zt_getaddrinfo_a, "getaddrinfo_a",
       (int mode, void **list, int count, void *notification)) {
    (void)mode, (void)list, (void)count, (void)notification;
    return EAI_AGAIN;
}

EXPORT(int, zt_getnameinfo, "getnameinfo",
       (const struct sockaddr *address, socklen_t length, char *host, socklen_t host_size,
        char *service, socklen_t service_size, int flags)) {
    if (length < sizeof address->sa_family)
        return EAI_FAMILY;
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6)
        return real()->getnameinfo(address, length, host, host_size, service, service_size, flags);
    if (length < (address->sa_family == AF_INET ? sizeof(struct sockaddr_in) : 24))
        return EAI_FAMILY;
    bool wants_host = host != NULL && host_size > 0;
    bool wants_service = service != NULL && service_size > 0;
    if (!wants_host && !wants_service)
        return EAI_NONAME;
    char texts[ZT_PAYLOAD_LIMIT];
    memset(texts, 0, sizeof texts);
    int error = zt_name_of(address, length, flags, texts, sizeof texts - 2);
    if (error != 0)
        return error;
    const char *service_text = texts + strlen(texts) + 1;
    if (wants_host) {
        if (strlen(texts) >= host_size)
            return EAI_OVERFLOW;
        strcpy(host, texts);
    }
    if (wants_service) {
        if (strlen(service_text) >= service_size)
            return EAI_OVERFLOW;
        strcpy(service, service_text);
    }
    return 0;
}

/* ---- gethostbyname and its kin ---- */

int zt_host_error(int error) {
    switch (error) {
    case 0:
        return NETDB_SUCCESS;
    case EAI_NONAME:
        return HOST_NOT_FOUND;
    case EAI_AGAIN:
        return TRY_AGAIN;
    case -5: /* EAI_NODATA */
    case -9: /* EAI_ADDRFAMILY */
        return NO_DATA;
    default:
        return NO_RECOVERY;
    }
}

/* Cuts pieces off a buffer that the caller gave us. */
struct room {
    char *at;
    size_t left;
};

static void *take(struct room *room, size_t size, size_t alignment) {
    size_t skip = (alignment - (uintptr_t)room->at % alignment) % alignment;
    if (room->left < skip + size)
        return NULL;
    char *piece = room->at + skip;
    room->at = piece + size;
    room->left -= skip + size;
    return piece;
}

static char *take_text(struct room *room, const char *text, size_t length) {
    char *piece = take(room, length + 1, 1);
    if (piece != NULL) {
        memcpy(piece, text, length);
        piece[length] = '\0';
    }
    return piece;
}

static size_t address_length(int family) { return family == AF_INET6 ? 16 : 4; }

static const uint8_t *address_in(const struct zt_resolve_row *row) {
    return row->address + (row->family == AF_INET6 ? offsetof(struct sockaddr_in6, sin6_addr)
                                                   : offsetof(struct sockaddr_in, sin_addr));
}

static bool fill_host(struct hostent *host, struct room *room, const struct zt_addresses *found,
                      const char *name, int family) {
    size_t length = address_length(family);
    uint32_t count = 0;
    for (uint32_t at = 0; at < found->count; at++)
        count += found->rows[at].type == SOCK_STREAM && found->rows[at].family == family;
    char **list = take(room, (count + 1) * sizeof *list, sizeof *list);
    char **aliases = take(room, sizeof *aliases, sizeof *aliases);
    char *text = found->canonical_length > 0
                     ? take_text(room, found->canonical, found->canonical_length)
                     : take_text(room, name, strlen(name));
    if (list == NULL || aliases == NULL || text == NULL)
        return false;
    uint32_t filled = 0;
    for (uint32_t at = 0; at < found->count; at++) {
        if (found->rows[at].type != SOCK_STREAM || found->rows[at].family != family)
            continue;
        list[filled] = take(room, length, 4);
        if (list[filled] == NULL)
            return false;
        memcpy(list[filled++], address_in(&found->rows[at]), length);
    }
    list[filled] = NULL;
    *aliases = NULL;
    *host = (struct hostent){
        .h_name = text,
        .h_aliases = aliases,
        .h_addrtype = family,
        .h_length = (int)length,
        .h_addr_list = list,
    };
    return filled > 0;
}

EXPORT(int, zt_gethostbyname2_r, "gethostbyname2_r",
       (const char *name, int family, struct hostent *host, char *buffer, size_t size,
        struct hostent **result, int *error)) {
    *result = NULL;
    if (family != AF_INET && family != AF_INET6) {
        *error = NETDB_INTERNAL;
        return EAFNOSUPPORT;
    }
    struct zt_addresses found = zt_resolve(name, NULL, family, AI_CANONNAME);
    if (found.error != 0) {
        *error = zt_host_error(found.error);
        return *error == TRY_AGAIN ? EAGAIN : 0;
    }
    struct room room = {.at = buffer, .left = size};
    bool fits = fill_host(host, &room, &found, name, family);
    bool is_empty = found.count == 0;
    free(found.block);
    if (!fits) {
        *error = is_empty ? HOST_NOT_FOUND : NETDB_INTERNAL;
        return is_empty ? 0 : ERANGE;
    }
    *error = NETDB_SUCCESS;
    *result = host;
    return 0;
}

EXPORT(int, zt_gethostbyname_r, "gethostbyname_r",
       (const char *name, struct hostent *host, char *buffer, size_t size,
        struct hostent **result, int *error)) {
    return zt_gethostbyname2_r(name, AF_INET, host, buffer, size, result, error);
}

EXPORT(int, zt_gethostbyaddr_r, "gethostbyaddr_r",
       (const void *address, socklen_t length, int family, struct hostent *host, char *buffer,
        size_t size, struct hostent **result, int *error)) {
    *result = NULL;
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct sockaddr_in four = {.sin_family = AF_INET};
    if ((family != AF_INET && family != AF_INET6) || length != address_length(family)) {
        *error = NETDB_INTERNAL;
        return EINVAL;
    }
    memcpy(family == AF_INET6 ? (void *)&six.sin6_addr : (void *)&four.sin_addr, address, length);
    char texts[ZT_PAYLOAD_LIMIT];
    memset(texts, 0, sizeof texts);
    int failed = family == AF_INET6
                     ? zt_name_of(&six, sizeof six, NI_NAMEREQD, texts, sizeof texts - 2)
                     : zt_name_of(&four, sizeof four, NI_NAMEREQD, texts, sizeof texts - 2);
    if (failed != 0) {
        *error = zt_host_error(failed);
        return *error == TRY_AGAIN ? EAGAIN : 0;
    }
    struct room room = {.at = buffer, .left = size};
    char **list = take(&room, 2 * sizeof *list, sizeof *list);
    char **aliases = take(&room, sizeof *aliases, sizeof *aliases);
    char *name = take_text(&room, texts, strlen(texts));
    char *copy = take(&room, length, 4);
    if (list == NULL || aliases == NULL || name == NULL || copy == NULL) {
        *error = NETDB_INTERNAL;
        return ERANGE;
    }
    memcpy(copy, address, length);
    list[0] = copy;
    list[1] = *aliases = NULL;
    *host = (struct hostent){
        .h_name = name,
        .h_aliases = aliases,
        .h_addrtype = family,
        .h_length = (int)length,
        .h_addr_list = list,
    };
    *error = NETDB_SUCCESS;
    *result = host;
    return 0;
}

/* The old functions answer from static memory, as their manual says. */
static struct hostent static_host;
static char static_buffer[ZT_PAYLOAD_LIMIT];

EXPORT(struct hostent *, zt_gethostbyname2, "gethostbyname2", (const char *name, int family)) {
    struct hostent *result;
    zt_gethostbyname2_r(name, family, &static_host, static_buffer, sizeof static_buffer, &result,
                        &h_errno);
    return result;
}

EXPORT(struct hostent *, zt_gethostbyname, "gethostbyname", (const char *name)) {
    return zt_gethostbyname2(name, AF_INET);
}

EXPORT(struct hostent *, zt_gethostbyaddr, "gethostbyaddr",
       (const void *address, socklen_t length, int family)) {
    struct hostent *result;
    zt_gethostbyaddr_r(address, length, family, &static_host, static_buffer, sizeof static_buffer,
                       &result, &h_errno);
    return result;
}

/* ---- interfaces ---- */

#define INTERFACES 512 /* rows in one answer at most, see the payload limit of RESOLVE */

static int ask_interfaces(struct zt_interface_row *rows) {
    struct call call = {
        .op = ZT_OP_IFADDRS,
        .room = rows,
        .room_size = INTERFACES * sizeof *rows,
    };
    if (zt_call_simple(&call) < 0)
        return -1;
    if (call.answer_length % sizeof *rows != 0 || call.answer_length > call.room_size) {
        errno = EPROTO;
        return -1;
    }
    return (int)(call.answer_length / sizeof *rows);
}

struct interface_node {
    struct ifaddrs head;
    struct sockaddr_storage address, netmask, broadcast;
    char name[16];
};

static void fill_node(struct interface_node *node, const struct zt_interface_row *row) {
    memcpy(node->name, row->name, sizeof node->name);
    node->head.ifa_name = node->name;
    node->head.ifa_flags = row->flags;
    node->head.ifa_addr = (struct sockaddr *)&node->address;
    if (row->length == 0) {
        struct sockaddr_ll link = {
            .sll_family = AF_PACKET,
            .sll_ifindex = (int)row->index,
            .sll_hatype = row->flags & IFF_LOOPBACK ? 772 : 1, /* ARPHRD_LOOPBACK, _ETHER */
            .sll_halen = sizeof row->mac,
        };
        memcpy(link.sll_addr, row->mac, sizeof row->mac);
        memcpy(&node->address, &link, sizeof link);
        return;
    }
    size_t length = row->length < sizeof row->address ? row->length : sizeof row->address;
    memcpy(&node->address, row->address, length);
    memcpy(&node->netmask, row->netmask, length);
    node->head.ifa_netmask = (struct sockaddr *)&node->netmask;
    if (row->flags & IFF_BROADCAST && node->address.ss_family == AF_INET) {
        memcpy(&node->broadcast, row->broadcast, length);
        node->head.ifa_broadaddr = (struct sockaddr *)&node->broadcast;
    }
}

EXPORT(int, zt_getifaddrs, "getifaddrs", (struct ifaddrs **result)) {
    struct zt_interface_row *rows = malloc(INTERFACES * sizeof *rows);
    if (rows == NULL)
        return -1;
    int count = ask_interfaces(rows);
    struct interface_node *nodes = count > 0 ? calloc((size_t)count, sizeof *nodes) : NULL;
    if (count >= 0)
        *result = nodes != NULL ? &nodes->head : NULL;
    for (int at = 0; nodes != NULL && at < count; at++) {
        fill_node(&nodes[at], &rows[at]);
        if (at > 0)
            nodes[at - 1].head.ifa_next = &nodes[at].head;
    }
    free(rows);
    return count < 0 || (count > 0 && nodes == NULL) ? -1 : 0;
}

EXPORT(unsigned, zt_if_nametoindex, "if_nametoindex", (const char *name)) {
    struct zt_interface_row *rows = malloc(INTERFACES * sizeof *rows);
    unsigned index = 0;
    int count = rows != NULL ? ask_interfaces(rows) : 0;
    for (int at = 0; at < count && index == 0; at++)
        if (strncmp(rows[at].name, name, sizeof rows[at].name) == 0)
            index = rows[at].index;
    free(rows);
    if (index == 0)
        errno = ENODEV;
    return index;
}

EXPORT(char *, zt_if_indextoname, "if_indextoname", (unsigned index, char *name)) {
    struct zt_interface_row *rows = malloc(INTERFACES * sizeof *rows);
    int count = rows != NULL ? ask_interfaces(rows) : 0;
    char *found = NULL;
    for (int at = 0; at < count && found == NULL; at++)
        if (rows[at].index == index)
            found = memcpy(name, rows[at].name, sizeof rows[at].name);
    free(rows);
    if (found == NULL)
        errno = ENXIO;
    return found;
}

EXPORT(struct if_nameindex *, zt_if_nameindex, "if_nameindex", (void)) {
    struct zt_interface_row *rows = malloc(INTERFACES * sizeof *rows);
    int count = rows != NULL ? ask_interfaces(rows) : -1;
    struct if_nameindex *list = count >= 0 ? calloc((size_t)count + 1, sizeof *list) : NULL;
    size_t filled = 0;
    for (int at = 0; list != NULL && at < count; at++) {
        if (rows[at].length != 0)
            continue; /* one row without an address stands for each interface */
        list[filled].if_index = rows[at].index;
        list[filled++].if_name = strndup(rows[at].name, sizeof rows[at].name);
    }
    free(rows);
    if (list == NULL)
        errno = ENOBUFS;
    return list;
}
