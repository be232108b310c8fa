/*
 * Datagram stand-ins: an AF_UNIX SOCK_SEQPACKET pair whose messages carry a header of 64 octets in
 * front of the datagram, in both directions.  Scatter/gather puts the header and the program's own
 * buffers side by side: no copy and no further system call.
 */
#include "shim.h"

#include <alloca.h>
#include <time.h>

#define HEADER sizeof(struct zt_datagram_header)
#define LIMIT_INET 65507  /* 65535 - IPv4 header - UDP header */
#define LIMIT_INET6 65527 /* 65535 - UDP header */

/* Destinations that the service has just said may be sent to, so that it is not asked each time. */
#define ROUTES 64
#define ROUTE_SECONDS 2 /* arbitrary: how late a new route or a new permission may be noticed */
struct route {
    uint64_t cookie;
    uint8_t address[16];
    time_t until;
};
static __thread struct route routes[ROUTES] __attribute__((tls_model("initial-exec")));

static int fail(int error) {
    errno = error;
    return -1;
}

static time_t coarse_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return now.tv_sec;
}

static struct route *route_to(uint64_t cookie, const uint8_t *peer, uint8_t address[16]) {
    sa_family_t family;
    memcpy(&family, peer, sizeof family);
    memset(address, 0, 16);
    if (family == AF_INET6)
        memcpy(address, peer + offsetof(struct sockaddr_in6, sin6_addr), 16);
    else
        memcpy(address, peer + offsetof(struct sockaddr_in, sin_addr), 4);
    uint64_t hash = cookie * UINT64_C(0x9E3779B97F4A7C15);
    for (int at = 0; at < 16; at++)
        hash = (hash ^ address[at]) * UINT64_C(0x100000001B3);
    return &routes[(hash >> 32) % ROUTES];
}

static void remember_route(uint64_t cookie, const uint8_t *peer) {
    uint8_t address[16];
    struct route *route = route_to(cookie, peer, address);
    route->cookie = cookie;
    memcpy(route->address, address, sizeof address);
    route->until = coarse_now() + ROUTE_SECONDS;
}

/* May the socket send there?  0: yes; 1: a kernel socket has taken its place; -1: errno. */
static int check_route(int fd, const struct slot *slot, const uint8_t *peer, uint32_t length) {
    uint8_t address[16];
    const struct route *route = route_to(slot->cookie, peer, address);
    if (route->cookie == slot->cookie && memcmp(route->address, address, sizeof address) == 0 &&
        coarse_now() < route->until)
        return 0;
    uint8_t options[ZT_PAYLOAD_LIMIT];
    struct call call = {
        .op = ZT_OP_POLICY,
        .sock = slot->cookie,
        .payload = peer,
        .length = length,
        .room = options,
        .room_size = sizeof options,
    };
    int verdict = zt_call_simple(&call);
    if (verdict < 0)
        return -1;
    if (verdict == ZT_POLICY_HOST)
        return zt_replace_with_host(fd, slot, options, call.answer_length) < 0 ? -1 : 1;
    if (verdict == ZT_POLICY_DENY)
        return fail(EACCES);
    remember_route(slot->cookie, peer);
    return 0;
}

/* An error record in front of the queue is taken and returned, as sk_err is; else 0. */
int zt_datagram_pending_error(int fd) {
    struct zt_datagram_header head;
    int saved = errno, error = 0;
    ssize_t length = real()->recv(fd, &head, HEADER, MSG_PEEK | MSG_DONTWAIT);
    if (length == (ssize_t)HEADER && head.flags & ZT_DATAGRAM_ERROR) {
        real()->recv(fd, &head, HEADER, MSG_DONTWAIT);
        error = (int)(uint32_t)head.time_ns;
    }
    errno = saved;
    return error;
}

/* The size of the first datagram, for FIONREAD. */
int zt_datagram_available(int fd) {
    struct zt_datagram_header head;
    ssize_t length = real()->recv(fd, &head, HEADER, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);
    if (length < (ssize_t)HEADER || head.flags & ZT_DATAGRAM_ERROR)
        return 0;
    return (int)(length - (ssize_t)HEADER);
}

static int read_destination(const struct slot *slot, const struct msghdr *message,
                            struct zt_datagram_header *head) {
    sa_family_t family;
    if (message->msg_namelen < sizeof(struct sockaddr_in))
        return fail(EINVAL);
    memcpy(&family, message->msg_name, sizeof family);
    size_t length = sizeof(struct sockaddr_in);
    if (slot->domain == AF_INET6 && family == AF_INET6) {
        if (message->msg_namelen < 24) /* without sin6_scope_id, as RFC 2133 had it */
            return fail(EINVAL);
        length = message->msg_namelen < 28 ? 24 : 28;
    } else if (family != AF_INET && !(slot->domain == AF_INET && family == AF_UNSPEC)) {
        return fail(slot->domain == AF_INET6 ? EINVAL : EAFNOSUPPORT);
    }
    memcpy(head->peer, message->msg_name, length);
    head->peer_length = length == 24 ? 28 : (uint16_t)length;
    if (family == AF_UNSPEC) {
        family = AF_INET;
        memcpy(head->peer, &family, sizeof family);
    }
    return head->peer[2] == 0 && head->peer[3] == 0 ? fail(EINVAL) : 0; /* port 0 */
}

static int read_control(const struct msghdr *message, struct zt_datagram_header *head) {
    struct msghdr copy = *message;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&copy); part != NULL;
         part = CMSG_NXTHDR(&copy, part)) {
        size_t length = part->cmsg_len - CMSG_LEN(0);
        int number = 0;
        if (length >= sizeof number)
            memcpy(&number, CMSG_DATA(part), sizeof number);
        if (part->cmsg_level == SOL_SOCKET)
            continue; /* rights and credentials mean nothing to a datagram, and are not checked */
        if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO &&
            length >= sizeof(struct in_pktinfo)) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(part), sizeof info);
            head->ifindex = (uint32_t)info.ipi_ifindex;
            head->local_length = info.ipi_spec_dst.s_addr != 0 ? 4 : 0;
            memcpy(head->local, &info.ipi_spec_dst, 4);
        } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO &&
                   length >= sizeof(struct in6_pktinfo)) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(part), sizeof info);
            head->ifindex = info.ipi6_ifindex;
            head->local_length = IN6_IS_ADDR_UNSPECIFIED(&info.ipi6_addr) ? 0 : 16;
            memcpy(head->local, &info.ipi6_addr, 16);
        } else if ((part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_TTL) ||
                   (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_HOPLIMIT)) {
            if (length < sizeof number || number < 1 || number > 255)
                return fail(EINVAL);
            head->ttl = (uint8_t)number;
        } else if ((part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_TOS) ||
                   (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_TCLASS)) {
            head->tos = length == 1 ? *(uint8_t *)CMSG_DATA(part) : (uint8_t)number;
        } else {
            return fail(EINVAL);
        }
    }
    return 0;
}

/* Has the socket a peer?  A cached no is asked about, for another process may have connected it. */
static bool is_connected(int fd, const struct slot *slot) {
    if (slot->flags & SLOT_CONNECTED)
        return true;
    uint8_t peer[32];
    struct call call = {
        .op = ZT_OP_GETPEERNAME, .sock = slot->cookie, .room = peer, .room_size = sizeof peer};
    int saved = errno;
    bool result = zt_call_simple(&call) == 0;
    if (result)
        zt_set_flags(fd, SLOT_CONNECTED, SLOT_FRESH);
    errno = saved;
    return result;
}

ssize_t zt_datagram_send(int fd, const struct slot *slot, const struct msghdr *message, int flags) {
    struct zt_datagram_header head = {0};
    size_t total = 0;
    if (message->msg_iovlen > IOV_MAX - 1)
        return fail(EMSGSIZE);
    for (size_t at = 0; at < message->msg_iovlen; at++)
        total += message->msg_iov[at].iov_len;
    if (total > (size_t)(slot->domain == AF_INET6 ? LIMIT_INET6 : LIMIT_INET))
        return fail(EMSGSIZE);
    if (flags & MSG_OOB)
        return fail(EOPNOTSUPP);
    bool has_address = message->msg_name != NULL && message->msg_namelen > 0;
    if (has_address) {
        if (read_destination(slot, message, &head) < 0)
            return -1;
    } else if (!is_connected(fd, slot)) {
        return fail(EDESTADDRREQ);
    }
    if (message->msg_controllen > 0 && read_control(message, &head) < 0)
        return -1;
    if (slot->flags & SLOT_CONNECTED) {
        int error = zt_datagram_pending_error(fd);
        if (error != 0)
            return fail(error);
    }
    if (has_address) {
        int verdict = check_route(fd, slot, head.peer, head.peer_length);
        if (verdict != 0)
            return verdict < 0 ? -1 : real()->sendmsg(fd, message, flags);
    }
    struct iovec *pieces = alloca((message->msg_iovlen + 1) * sizeof *pieces);
    pieces[0] = (struct iovec){.iov_base = &head, .iov_len = HEADER};
    memcpy(pieces + 1, message->msg_iov, message->msg_iovlen * sizeof *pieces);
    struct msghdr whole = {.msg_iov = pieces, .msg_iovlen = message->msg_iovlen + 1};
    ssize_t sent = real()->sendmsg(fd, &whole, (flags & MSG_DONTWAIT) | MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno == ECONNRESET || errno == ENOTCONN)
            errno = ENETDOWN; /* the service is gone */
        return -1;
    }
    return sent - (ssize_t)HEADER;
}

/* ---- receiving ---- */

/* Appends a control message, or says in msg_flags that there was no room. */
static void put_control(struct msghdr *message, size_t room, int level, int type, const void *data,
                        size_t length) {
    size_t used = message->msg_controllen;
    if (room < used + CMSG_LEN(length)) {
        message->msg_flags |= MSG_CTRUNC;
        return;
    }
    struct cmsghdr part = {.cmsg_len = CMSG_LEN(length), .cmsg_level = level, .cmsg_type = type};
    uint8_t *at = (uint8_t *)message->msg_control + used;
    memcpy(at, &part, sizeof part);
    memcpy(at + CMSG_LEN(0), data, length);
    message->msg_controllen = used + CMSG_SPACE(length) <= room ? used + CMSG_SPACE(length) : room;
}

static void put_controls(struct msghdr *message, size_t room, const struct slot *slot,
                         const struct zt_datagram_header *head) {
    int ttl = head->ttl, tos = head->tos;
    bool is_six = slot->domain == AF_INET6;
    if (head->flags & ZT_DATAGRAM_PKTINFO && is_six) {
        struct in6_pktinfo info = {.ipi6_ifindex = head->ifindex};
        memcpy(&info.ipi6_addr, head->local, 16);
        put_control(message, room, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    } else if (head->flags & ZT_DATAGRAM_PKTINFO) {
        struct in_pktinfo info = {.ipi_ifindex = (int)head->ifindex};
        memcpy(&info.ipi_addr, head->local, 4);
        memcpy(&info.ipi_spec_dst, head->local, 4);
        put_control(message, room, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    }
    if (head->flags & ZT_DATAGRAM_TTL)
        put_control(message, room, is_six ? IPPROTO_IPV6 : IPPROTO_IP,
                    is_six ? IPV6_HOPLIMIT : IP_TTL, &ttl, sizeof ttl);
    if (head->flags & ZT_DATAGRAM_TOS) {
        if (is_six)
            put_control(message, room, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos);
        else
            put_control(message, room, IPPROTO_IP, IP_TOS, &head->tos, 1);
    }
}

/* End of file on the pair: our own shutdown(), or the service is gone. */
static ssize_t end_of_file(const struct slot *slot) {
    struct zt_query_row row;
    struct call call = {
        .op = ZT_OP_QUERY,
        .payload = &slot->cookie,
        .length = sizeof slot->cookie,
        .room = &row,
        .room_size = sizeof row,
    };
    if (zt_call(&call) == CALL_OK && call.ret == 0 && row.kind == ZT_KIND_DATAGRAM)
        return 0;
    return fail(ENETDOWN);
}

ssize_t zt_datagram_receive(int fd, const struct slot *slot, struct msghdr *message, int flags) {
    struct zt_datagram_header head = {0};
    if (flags & MSG_ERRQUEUE)
        return fail(EAGAIN);
    if (message->msg_iovlen > IOV_MAX - 1)
        return fail(EMSGSIZE);
    size_t room = message->msg_control != NULL ? message->msg_controllen : 0;
    struct iovec *pieces = alloca((message->msg_iovlen + 1) * sizeof *pieces);
    pieces[0] = (struct iovec){.iov_base = &head, .iov_len = HEADER};
    memcpy(pieces + 1, message->msg_iov, message->msg_iovlen * sizeof *pieces);
    size_t space = 0;
    for (size_t at = 0; at < message->msg_iovlen; at++)
        space += message->msg_iov[at].iov_len;
    struct msghdr whole;
    ssize_t length;
    do {
        whole = (struct msghdr){
            .msg_iov = pieces,
            .msg_iovlen = message->msg_iovlen + 1,
            .msg_control = message->msg_control,
            .msg_controllen = room,
        };
        length = real()->recvmsg(
            fd, &whole, (flags & (MSG_DONTWAIT | MSG_PEEK | MSG_CMSG_CLOEXEC)) | MSG_TRUNC);
        if (length < 0)
            return -1;
        if (length == 0)
            return end_of_file(slot);
    } while (length < (ssize_t)HEADER && !(flags & MSG_PEEK)); /* no datagram: not from the service */
    if (head.flags & ZT_DATAGRAM_ERROR) {
        if (flags & MSG_PEEK)
            real()->recv(fd, &head, HEADER, MSG_DONTWAIT); /* an error goes even when peeked at */
        return fail((int)(uint32_t)head.time_ns);
    }
    size_t size = (size_t)length - HEADER;
    if (head.peer_length > sizeof head.peer)
        head.peer_length = 0;
    if (message->msg_name != NULL) {
        memcpy(message->msg_name, head.peer,
               message->msg_namelen < head.peer_length ? message->msg_namelen : head.peer_length);
        message->msg_namelen = head.peer_length;
    }
    if (head.peer_length > 0)
        remember_route(slot->cookie, head.peer); /* who wrote to us can be answered */
    message->msg_controllen = whole.msg_controllen;
    message->msg_flags = whole.msg_flags & MSG_CTRUNC;
    if (size > space)
        message->msg_flags |= MSG_TRUNC;
    if (head.flags & (ZT_DATAGRAM_PKTINFO | ZT_DATAGRAM_TTL | ZT_DATAGRAM_TOS))
        put_controls(message, room, slot, &head);
    return (ssize_t)(size > space && !(flags & MSG_TRUNC) ? space : size);
}
