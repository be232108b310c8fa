/*
 * The calls that make, name, connect and configure sockets.
 */
#include "shim.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>

#ifndef SO_RCVTIMEO_NEW
#define SO_RCVTIMEO_NEW 66
#define SO_SNDTIMEO_NEW 67
#endif
#ifndef SO_TIMESTAMP_NEW
#define SO_TIMESTAMP_NEW 63
#define SO_TIMESTAMPNS_NEW 64
#endif
#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

#define TYPE_FLAGS (SOCK_NONBLOCK | SOCK_CLOEXEC)

static int fail(int error) {
    errno = error;
    return -1;
}

/* ---- socket ---- */

EXPORT(int, zt_socket, "socket", (int domain, int type, int protocol)) {
    if (domain != AF_INET && domain != AF_INET6) {
        /* What bypasses every stack must not reach the host behind our back. */
        if (domain == AF_PACKET && zt_is_strict())
            return fail(EPERM);
        return real()->socket(domain, type, protocol);
    }
    if (type & ~(0xf | TYPE_FLAGS))
        return fail(EINVAL);
    struct call call = {
        .op = ZT_OP_SOCKET,
        .a = domain,
        .b = type & 0xf,
        .payload = &protocol,
        .length = sizeof(int32_t),
        .wants_descriptor = true,
    };
    struct slot slot;
    int fd;
    if (zt_environment.repurposes && (type & 0xf) == SOCK_STREAM &&
        zt_service_pid(true) >= 0 && zt_has_feature(ZT_FEATURE_REPURPOSE)) {
        fd = zt_repurpose(domain, type & 0xf, protocol, &slot);
        if (fd < 0)
            return -1;
    } else {
        if (zt_call_simple(&call) < 0)
            return -1;
        fd = call.descriptor;
        slot = (struct slot){
            .cookie = call.answer_sock,
            .domain = (uint8_t)domain,
            .type = (uint8_t)(type & 0xf),
            .protocol = (uint16_t)call.ret, /* the service says what protocol 0 means */
            .flags = SLOT_FRESH,
        };
    }
    if (zt_open_flags(fd, type) < 0) {
        int error = errno;
        real()->close(fd);
        return fail(error);
    }
    zt_remember(fd, &slot, slot.type == SOCK_STREAM ? KIND_OPENING : KIND_DATAGRAM);
    return fd;
}
ALIAS(zt_socket, "socket", __socket);

/* The destination is the host's by policy: a kernel socket takes the number's place. */
int zt_replace_with_host(int fd, const struct slot *slot, const uint8_t *options, uint32_t length) {
    int status = real()->fcntl(fd, F_GETFL), flags = real()->fcntl(fd, F_GETFD);
    if (status < 0 || flags < 0)
        return -1;
    int type = slot->type | (status & O_NONBLOCK ? SOCK_NONBLOCK : 0) | SOCK_CLOEXEC;
    int host = real()->socket(slot->domain, type, slot->protocol);
    if (host < 0)
        return -1;
    while (length >= sizeof(struct zt_option)) {
        struct zt_option option;
        memcpy(&option, options, sizeof option);
        options += sizeof option;
        length -= (uint32_t)sizeof option;
        if (option.length > length)
            break;
        /* What the kernel's socket does not take here it would not have taken before. */
        real()->setsockopt(host, option.level, option.option, options, option.length);
        options += option.length;
        length -= option.length;
    }
    int result = real()->dup3(host, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0);
    int error = errno;
    real()->close(host);
    if (result < 0)
        return fail(error);
    zt_forget(fd);
    return 0;
}

EXPORT(int, zt_bind, "bind", (int fd, const void *address, socklen_t length)) {
    struct slot slot;
    if (!zt_identify(fd, &slot))
        return real()->bind(fd, address, length);
    if (length > sizeof(struct sockaddr_storage))
        return fail(EINVAL);
    if (address == NULL)
        return fail(EFAULT);
    uint8_t options[ZT_PAYLOAD_LIMIT];
    struct call call = {
        .op = ZT_OP_BIND,
        .sock = slot.cookie,
        .payload = address,
        .length = length,
        .room = options,
        .room_size = sizeof options,
    };
    int result = zt_call_simple(&call);
    if (result == 0 && call.answer_flags & ZT_ANSWER_HOST) {
        if (zt_replace_with_host(fd, &slot, options, call.answer_length) < 0)
            return -1;
        return real()->bind(fd, address, length);
    }
    return result;
}
ALIAS(zt_bind, "bind", __bind);

/* ---- connect ---- */

static bool int_option(int fd, int option, int *value) {
    socklen_t length = sizeof *value;
    return real()->getsockopt(fd, SOL_SOCKET, option, value, &length) == 0;
}

/*
 * Fills the send queue, so that the descriptor is neither readable nor writable while the
 * connection is being made.  The service swallows all but the last octet when it stands; that one
 * is a message of its own, because whatever stays in the queue keeps its whole buffer charged.
 */
static int32_t plug(int fd) {
    static char filler[131072]; /* never written: in .bss it costs nothing */
    static const int sizes[] = {131072, 32768, 8192, 2048};
    int room, queued;
    int32_t total = 0;
    if (!int_option(fd, SO_SNDBUF, &room))
        return 0;
    for (size_t at = 0; at < sizeof sizes / sizeof *sizes; at++) {
        while (real()->ioctl(fd, SIOCOUTQ, &queued) == 0 &&
               room - queued > sizes[at] + sizes[at] / 4 + 1024) {
            ssize_t sent =
                real()->send(fd, filler, (size_t)sizes[at], MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent <= 0)
                break;
            total += (int32_t)sent;
        }
    }
    while (real()->send(fd, filler, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
        total++;
    return total;
}

/* A new stand-in under the old number, after an attempt that failed while nobody waited. */
static int revive(int fd, struct slot *slot) {
    struct call call = {.op = ZT_OP_REVIVE, .sock = slot->cookie, .wants_descriptor = true};
    if (zt_call_simple(&call) < 0)
        return -1;
    int status = real()->fcntl(fd, F_GETFL), flags = real()->fcntl(fd, F_GETFD);
    int result = -1;
    if (status >= 0 && flags >= 0 && real()->fcntl(call.descriptor, F_SETFL, status) == 0)
        result = real()->dup3(call.descriptor, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0);
    int error = errno;
    real()->close(call.descriptor);
    if (result < 0)
        return fail(error);
    slot->cookie = call.answer_sock;
    slot->flags = SLOT_FRESH;
    zt_remember(fd, slot, KIND_OPENING);
    return 0;
}

/* What SO_SNDTIMEO allows a blocking connect to take, in milliseconds; -1 for ever. */
static int patience(int fd) {
    struct timeval limit;
    socklen_t length = sizeof limit;
    if (real()->getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &length) < 0 ||
        (limit.tv_sec == 0 && limit.tv_usec == 0))
        return -1;
    if (limit.tv_sec > INT_MAX / 1000 - 1)
        return -1;
    return (int)(limit.tv_sec * 1000 + limit.tv_usec / 1000);
}

static int connect_stand_in(int fd, struct slot *slot, const void *address, socklen_t length) {
    bool is_stream = slot->type == SOCK_STREAM;
    sa_family_t family = AF_UNSPEC;
    if (length >= sizeof family)
        memcpy(&family, address, sizeof family);
    int status = real()->fcntl(fd, F_GETFL);
    if (status < 0)
        return -1;
    bool is_blocking = is_stream && !(status & O_NONBLOCK);
    for (int attempt = 0; attempt < 2; attempt++) {
        uint8_t options[ZT_PAYLOAD_LIMIT];
        struct call call = {
            .op = ZT_OP_CONNECT,
            .flags = is_blocking ? 0 : ZT_REQUEST_NONBLOCK,
            .sock = slot->cookie,
            .payload = address,
            .length = length,
            .is_blocking = is_blocking,
            .timeout_ms = is_blocking ? patience(fd) : 0,
            .room = options,
            .room_size = sizeof options,
        };
        if (is_stream && family != AF_UNSPEC) {
            int state = zt_state(fd, slot);
            if (state == ZT_STATE_NEW || state == ZT_STATE_BOUND) {
                call.a = plug(fd);
                zt_set_flags(fd, 0, SLOT_FRESH);
                slot->flags &= (uint8_t)~SLOT_FRESH;
            }
        }
        int result = zt_call(&call);
        if (result == CALL_FAILED)
            return -1;
        if (result != CALL_OK) { /* the attempt goes on, as POSIX says */
            return fail(result == CALL_EINTR ? EINTR : EINPROGRESS);
        }
        if (call.answer_flags & ZT_ANSWER_HOST) {
            if (zt_replace_with_host(fd, slot, options, call.answer_length) < 0)
                return -1;
            return real()->connect(fd, address, length);
        }
        if (call.answer_flags & ZT_ANSWER_REVIVE) {
            if (revive(fd, slot) < 0)
                return -1;
            continue;
        }
        if (call.ret == 0) {
            zt_set_flags(fd, family == AF_UNSPEC ? 0 : SLOT_CONNECTED,
                         family == AF_UNSPEC ? SLOT_CONNECTED : 0);
            if (is_stream)
                zt_set_kind(fd, KIND_NATIVE);
            return 0;
        }
        return fail(call.err);
    }
    return fail(ECONNABORTED);
}

EXPORT(int, zt_connect, "connect", (int fd, const void *address, socklen_t length)) {
    struct slot slot;
    if (!zt_identify(fd, &slot))
        return real()->connect(fd, address, length);
    if (length > sizeof(struct sockaddr_storage))
        return fail(EINVAL);
    if (address == NULL)
        return fail(EFAULT);
    return connect_stand_in(fd, &slot, address, length);
}
ALIAS(zt_connect, "connect", __connect);

/* ---- listen and accept ---- */

EXPORT(int, zt_listen, "listen", (int fd, int backlog)) {
    struct slot slot;
    if (!zt_identify(fd, &slot))
        return real()->listen(fd, backlog);
    struct call call = {.op = ZT_OP_LISTEN, .sock = slot.cookie, .a = backlog};
    int result = zt_call_simple(&call);
    if (result == 0)
        zt_set_flags(fd, SLOT_LISTENING, SLOT_FRESH);
    return result;
}
ALIAS(zt_listen, "listen", __listen);

/* Copies an address as the kernel does: cut to the room, with the full length told. */
static void give_address(void *room, socklen_t *length, const void *address, socklen_t full) {
    if (room == NULL || length == NULL)
        return;
    memcpy(room, address, *length < full ? *length : full);
    *length = full;
}

static bool length_is_bad(const void *room, const socklen_t *length) {
    return room != NULL && length != NULL && (int)*length < 0;
}

static int take_record(int fd, struct zt_accept_record *record, int flags) {
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec piece = {.iov_base = record, .iov_len = sizeof *record};
    struct msghdr message = {
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    ssize_t length = real()->recvmsg(fd, &message, flags & SOCK_CLOEXEC ? MSG_CMSG_CLOEXEC : 0);
    if (length < 0)
        return -1;
    int accepted = -1;
    struct cmsghdr *part = message.msg_controllen > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (part != NULL && part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS)
        memcpy(&accepted, CMSG_DATA(part), sizeof accepted);
    if (length == 0)
        return fail(EINVAL); /* the listener was shut down */
    if (length != sizeof *record || record->magic != ZT_ACCEPT_MAGIC ||
        record->version != ZT_ACCEPT_VERSION || record->peer_length > sizeof record->peer) {
        if (accepted >= 0)
            real()->close(accepted);
        return fail(accepted < 0 ? EINVAL : EPROTO);
    }
    return accepted >= 0 ? accepted : fail(EMFILE);
}

static int accept_record(int fd, const struct slot *slot, void *address, socklen_t *length,
                         int flags) {
    if (flags & ~TYPE_FLAGS)
        return fail(EINVAL);
    if (slot->type != SOCK_STREAM)
        return fail(EOPNOTSUPP);
    if (length_is_bad(address, length))
        return fail(EINVAL);
    if (!(slot->flags & SLOT_LISTENING)) {
        if (zt_state(fd, slot) != ZT_STATE_LISTENING)
            return fail(EINVAL);
        zt_set_flags(fd, SLOT_LISTENING, SLOT_FRESH);
    }
    /* A record whose descriptor finds no number here would be lost with its connection. */
    int probe = real()->fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (probe < 0)
        return -1;
    real()->close(probe);
    struct zt_accept_record record;
    int accepted = take_record(fd, &record, flags);
    if (accepted < 0)
        return -1;
    char marker;
    if (record.flags & ZT_RECORD_MARKER)
        real()->recv(accepted, &marker, 1, MSG_DONTWAIT);
    if (flags & SOCK_NONBLOCK)
        real()->fcntl(accepted, F_SETFL, real()->fcntl(accepted, F_GETFL) | O_NONBLOCK);
    struct slot made = {
        .cookie = record.cookie,
        .domain = slot->domain,
        .type = SOCK_STREAM,
        .protocol = slot->protocol,
        .flags = SLOT_CONNECTED,
    };
    zt_remember(accepted, &made, KIND_NATIVE);
    give_address(address, length, record.peer, record.peer_length);
    return accepted;
}

EXPORT(int, zt_accept4, "accept4", (int fd, void *address, socklen_t *length, int flags)) {
    struct slot slot;
    if (!zt_identify(fd, &slot))
        return real()->accept4(fd, address, length, flags);
    return accept_record(fd, &slot, address, length, flags);
}

EXPORT(int, zt_accept, "accept", (int fd, void *address, socklen_t *length)) {
    struct slot slot;
    if (!zt_identify(fd, &slot))
        return real()->accept(fd, address, length);
    return accept_record(fd, &slot, address, length, 0);
}

/* ---- names ---- */

static int ask_name(int fd, int op, void *address, socklen_t *length, const struct slot *slot) {
    (void)fd;
    if (address == NULL || length == NULL)
        return fail(EFAULT);
    if (length_is_bad(address, length))
        return fail(EINVAL);
    uint8_t room[32];
    struct call call = {
        .op = (uint8_t)op,
        .sock = slot->cookie,
        .room = room,
        .room_size = sizeof room,
    };
    if (zt_call_simple(&call) < 0)
        return -1;
    give_address(address, length, room, call.answer_length);
    return 0;
}

EXPORT(int, zt_getsockname, "getsockname", (int fd, void *address, socklen_t *length)) {
    struct slot slot;
    if (!zt_identify(fd, &slot))
        return real()->getsockname(fd, address, length);
    return ask_name(fd, ZT_OP_GETSOCKNAME, address, length, &slot);
}
ALIAS(zt_getsockname, "getsockname", __getsockname);

EXPORT(int, zt_getpeername, "getpeername", (int fd, void *address, socklen_t *length)) {
    struct slot slot;
    if (!zt_identify(fd, &slot))
        return real()->getpeername(fd, address, length);
    return ask_name(fd, ZT_OP_GETPEERNAME, address, length, &slot);
}
ALIAS(zt_getpeername, "getpeername", __getpeername);

/* ---- options ---- */

/* Those that act on the pair itself as they would on the real thing. */
static bool is_native_option(int level, int option) {
    if (level != SOL_SOCKET)
        return false;
    switch (option) {
    case SO_RCVTIMEO:
    case SO_SNDTIMEO:
    case SO_RCVLOWAT:
    case SO_TIMESTAMP:
    case SO_TIMESTAMPNS:
    case SO_PRIORITY:
    case SO_MARK:
    case SO_PASSCRED:
    case SO_PEEK_OFF:
    case SO_COOKIE:
        return true;
    default:
        return option == SO_RCVTIMEO_NEW || option == SO_SNDTIMEO_NEW ||
               option == SO_TIMESTAMP_NEW || option == SO_TIMESTAMPNS_NEW;
    }
}

static int give_option(void *room, socklen_t *length, const void *value, socklen_t full) {
    if (*length > full)
        *length = full;
    memcpy(room, value, *length);
    return 0;
}

static int give_number(void *room, socklen_t *length, int value) {
    return give_option(room, length, &value, sizeof value);
}

static int get_own_option(int fd, const struct slot *slot, int level, int option, void *value,
                          socklen_t *length) {
    if (value == NULL || length == NULL)
        return fail(EFAULT);
    if ((int)*length < 0)
        return fail(EINVAL);
    if (level == SOL_SOCKET) {
        static const struct ucred nobody = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
        switch (option) {
        case SO_TYPE:
            return give_number(value, length, slot->type);
        case SO_DOMAIN:
            return give_number(value, length, slot->domain);
        case SO_PROTOCOL:
            return give_number(value, length, slot->protocol);
        case SO_PEERCRED: /* INET sockets have no credentials */
            return give_option(value, length, &nobody, sizeof nobody);
        case SO_ERROR:
            if (slot->type != SOCK_STREAM) {
                int error = zt_datagram_pending_error(fd);
                if (error != 0)
                    return give_number(value, length, error);
            }
            break;
        default:
            break;
        }
    }
    uint32_t room = *length < ZT_PAYLOAD_LIMIT ? *length : ZT_PAYLOAD_LIMIT;
    struct call call = {
        .op = ZT_OP_GETSOCKOPT,
        .sock = slot->cookie,
        .a = level,
        .b = option,
        .payload = &room,
        .length = sizeof room,
        .room = value,
        .room_size = room,
    };
    if (zt_call_simple(&call) < 0)
        return -1;
    *length = call.answer_length;
    return 0;
}

EXPORT(int, zt_getsockopt, "getsockopt",
       (int fd, int level, int option, void *value, socklen_t *length)) {
    struct slot slot;
    if (is_native_option(level, option) || !zt_identify(fd, &slot))
        return real()->getsockopt(fd, level, option, value, length);
    return get_own_option(fd, &slot, level, option, value, length);
}

/* Hints that every HTTP server gives for every response: no answer is worth waiting for. */
static bool is_hint(int level, int option) {
    return level == IPPROTO_TCP &&
           (option == TCP_CORK || option == TCP_NODELAY || option == TCP_QUICKACK);
}

EXPORT(int, zt_setsockopt, "setsockopt",
       (int fd, int level, int option, const void *value, socklen_t length)) {
    struct slot slot;
    if (is_native_option(level, option) || !zt_identify(fd, &slot))
        return real()->setsockopt(fd, level, option, value, length);
    if ((int)length < 0 || length > ZT_PAYLOAD_LIMIT)
        return fail(EINVAL);
    if (value == NULL && length > 0)
        return fail(EFAULT);
    bool hint = slot.type == SOCK_STREAM && is_hint(level, option) && length >= sizeof(int);
    struct call call = {
        .op = ZT_OP_SETSOCKOPT,
        .flags = hint ? ZT_REQUEST_NOREPLY : 0,
        .sock = slot.cookie,
        .a = level,
        .b = option,
        .payload = value,
        .length = length,
    };
    return zt_call_simple(&call);
}
ALIAS(zt_setsockopt, "setsockopt", __setsockopt);

/* ---- shutdown ---- */

EXPORT(int, zt_shutdown, "shutdown", (int fd, int how)) {
    struct slot slot;
    if (how < SHUT_RD || how > SHUT_RDWR || !zt_identify(fd, &slot))
        return real()->shutdown(fd, how);
    if (how == SHUT_WR && slot.type == SOCK_STREAM && slot.flags & SLOT_CONNECTED &&
        kind_of(fd) == KIND_NATIVE) {
        struct pollfd state = {.fd = fd};
        if (poll(&state, 1, 0) == 0) /* not hung up: the pair says it all */
            return real()->shutdown(fd, how);
    }
    struct call call = {.op = ZT_OP_SHUTDOWN, .sock = slot.cookie, .a = how};
    int result = zt_call_simple(&call);
    if (result == 0 && call.answer_flags & ZT_ANSWER_NATIVE)
        return real()->shutdown(fd, how);
    return result;
}
ALIAS(zt_shutdown, "shutdown", __shutdown);
