/*
 * The calls that move data.
 *
 * On a stream stand-in the kernel does all of them; the exceptions are those where AF_UNIX and TCP
 * differ: an address given to sendto(), MSG_TRUNC, and the error of a connect() that nobody waited
 * for.  Datagram stand-ins have a header in front of every message (datagram.c).
 */
#include "shim.h"

#include <time.h>

#ifndef MSG_FASTOPEN
#define MSG_FASTOPEN 0x20000000
#endif

int zt_connect(int fd, const void *address, socklen_t length) __asm__("connect");

static int fail(int error) {
    errno = error;
    return -1;
}

static bool is_datagram(int fd, struct slot *slot) {
    uint8_t kind = kind_of(fd);
    return (kind == KIND_DATAGRAM || kind == KIND_UNKNOWN) && zt_identify(fd, slot) &&
           slot->type != SOCK_STREAM;
}

static bool is_opening(int fd) { return kind_of(fd) == KIND_OPENING; }

/* What the service knows about the end of a connection: an errno, 0 if it was told, -1 if nothing. */
static int ask_error(int fd) {
    struct slot slot;
    int error = 0;
    uint32_t room = sizeof error;
    if (!zt_identify(fd, &slot))
        return -1;
    struct call call = {
        .op = ZT_OP_GETSOCKOPT,
        .sock = slot.cookie,
        .a = SOL_SOCKET,
        .b = SO_ERROR,
        .payload = &room,
        .length = sizeof room,
        .room = &error,
        .room_size = sizeof error,
    };
    zt_set_kind(fd, KIND_NATIVE);
    return zt_call(&call) == CALL_OK && call.ret == 0 ? error : -1;
}

/* Was nothing done yet that could have connected it, or is it a listener?  TCP says so. */
static bool is_unconnected(int fd) {
    struct slot slot;
    if (!zt_identify(fd, &slot))
        return false;
    return slot.flags & SLOT_LISTENING || (slot.flags & SLOT_FRESH && zt_state(fd, &slot) == 0);
}

/*
 * After a read on a stream: the pair says ECONNRESET for whatever ended the connection, the service
 * knows if it was something else, and if SO_ERROR has told it already.  EPIPE is a reset behind the
 * peer's end of the stream, and a reader has got all there is.
 */
static ssize_t after_receive(int fd, ssize_t result) {
    if (result == 0 && zt_has_feature(ZT_FEATURE_ASK_END)) {
        int error = ask_error(fd);
        return error > 0 && error != EPIPE ? fail(error) : 0;
    }
    if (result >= 0) {
        if (UNLIKELY(is_opening(fd)))
            zt_set_kind(fd, KIND_NATIVE);
    } else if (errno == ECONNRESET) {
        int error = ask_error(fd);
        if (error == 0 || error == EPIPE)
            return 0;
        errno = error > 0 ? error : ECONNRESET;
    }
    return result;
}

/* Writes to a stream that may not be connected; TCP tells its error before EPIPE, and instead. */
static ssize_t send_opening(int fd, const struct msghdr *message, int flags) {
    int error = EPIPE;
    if (!is_unconnected(fd)) {
        ssize_t result = real()->sendmsg(fd, message, flags | MSG_NOSIGNAL);
        if (result >= 0)
            zt_set_kind(fd, KIND_NATIVE);
        if (result >= 0 || (errno != EPIPE && errno != ECONNRESET))
            return result;
        error = ask_error(fd);
        error = error > 0 ? error : EPIPE;
    }
    if (error == EPIPE && !(flags & MSG_NOSIGNAL))
        raise(SIGPIPE);
    return fail(error);
}

static struct msghdr message_of(struct iovec *piece, const void *data, size_t length) {
    *piece = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = length};
    return (struct msghdr){.msg_iov = piece, .msg_iovlen = 1};
}

/* ---- sending ---- */

static ssize_t send_message(int fd, const struct msghdr *message, int flags) {
    struct slot slot;
    if (is_datagram(fd, &slot))
        return zt_datagram_send(fd, &slot, message, flags);
    bool is_odd = message->msg_name != NULL || flags & MSG_FASTOPEN;
    if (is_odd && zt_identify(fd, &slot) && slot.type == SOCK_STREAM) {
        struct msghdr plain = *message;
        if (flags & MSG_FASTOPEN && plain.msg_name != NULL &&
            zt_connect(fd, plain.msg_name, plain.msg_namelen) < 0)
            return -1;
        plain.msg_name = NULL; /* TCP does not look at it */
        plain.msg_namelen = 0;
        flags &= ~MSG_FASTOPEN;
        return is_opening(fd) ? send_opening(fd, &plain, flags)
                                 : real()->sendmsg(fd, &plain, flags);
    }
    return is_opening(fd) ? send_opening(fd, message, flags)
                             : real()->sendmsg(fd, message, flags);
}

EXPORT(ssize_t, zt_send, "send", (int fd, const void *data, size_t length, int flags)) {
    if (kind_of(fd) == KIND_NATIVE && !(flags & MSG_FASTOPEN))
        return real()->send(fd, data, length, flags);
    struct iovec piece;
    struct msghdr message = message_of(&piece, data, length);
    return send_message(fd, &message, flags);
}
ALIAS(zt_send, "send", __send);

EXPORT(ssize_t, zt_sendto, "sendto",
       (int fd, const void *data, size_t length, int flags, const void *address,
        socklen_t address_length)) {
    struct slot slot;
    if (kind_of(fd) == KIND_NATIVE && (address == NULL || !zt_identify(fd, &slot)))
        return real()->sendto(fd, data, length, flags, address, address_length);
    struct iovec piece;
    struct msghdr message = message_of(&piece, data, length);
    message.msg_name = (void *)(uintptr_t)address;
    message.msg_namelen = address != NULL ? address_length : 0;
    return send_message(fd, &message, flags);
}
ALIAS(zt_sendto, "sendto", __sendto);

EXPORT(ssize_t, zt_sendmsg, "sendmsg", (int fd, const struct msghdr *message, int flags)) {
    return send_message(fd, message, flags);
}
ALIAS(zt_sendmsg, "sendmsg", __sendmsg);

EXPORT(int, zt_sendmmsg, "sendmmsg",
       (int fd, struct mmsghdr *messages, unsigned count, int flags)) {
    struct slot slot;
    if (!is_datagram(fd, &slot))
        return real()->sendmmsg(fd, messages, count, flags);
    unsigned sent = 0;
    if (count > IOV_MAX)
        count = IOV_MAX;
    for (; sent < count; sent++) {
        ssize_t length = send_message(fd, &messages[sent].msg_hdr, flags);
        if (length < 0)
            break;
        messages[sent].msg_len = (unsigned)length;
    }
    return sent > 0 || count == 0 ? (int)sent : -1;
}
ALIAS(zt_sendmmsg, "sendmmsg", __sendmmsg);

EXPORT(ssize_t, zt_write, "write", (int fd, const void *data, size_t length)) {
    if (UNLIKELY(kind_of(fd) != KIND_NATIVE)) {
        struct iovec piece;
        struct msghdr message = message_of(&piece, data, length);
        struct slot slot;
        if (is_datagram(fd, &slot) || is_opening(fd))
            return send_message(fd, &message, 0);
    }
    return real()->write(fd, data, length);
}
ALIAS(zt_write, "write", __write);

EXPORT(ssize_t, zt_writev, "writev", (int fd, const struct iovec *pieces, int count)) {
    if (UNLIKELY(kind_of(fd) != KIND_NATIVE)) {
        struct msghdr message = {
            .msg_iov = (struct iovec *)(uintptr_t)pieces,
            .msg_iovlen = (size_t)(count < 0 ? 0 : count),
        };
        struct slot slot;
        if (is_datagram(fd, &slot) || is_opening(fd))
            return send_message(fd, &message, 0);
    }
    return real()->writev(fd, pieces, count);
}

/* ---- receiving ---- */

/* TCP throws the data away that MSG_TRUNC asks for; AF_UNIX would write it to the buffer. */
static ssize_t discard(int fd, size_t length, int flags) {
    char scratch[16384];
    ssize_t total = 0;
    flags &= ~MSG_TRUNC;
    while (length > 0) {
        size_t step = length < sizeof scratch ? length : sizeof scratch;
        ssize_t taken = real()->recv(fd, scratch, step, flags);
        if (taken <= 0)
            return total > 0 ? total : taken;
        total += taken;
        length -= (size_t)taken;
        if (flags & MSG_PEEK)
            break;
        if (!(flags & MSG_WAITALL))
            flags |= MSG_DONTWAIT; /* take what is there, but wait for the first octet only */
    }
    return total;
}

/* Is it a stream stand-in that a flag concerns which AF_UNIX and TCP understand differently? */
static bool is_odd_stream(int fd, int flags) {
    struct slot slot;
    return flags & (MSG_TRUNC | MSG_ERRQUEUE) && zt_identify(fd, &slot) &&
           slot.type == SOCK_STREAM;
}

static void adopt_descriptors(struct msghdr *message) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t at = 0; at < count; at++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + at * sizeof fd, sizeof fd);
            zt_adopt_received(fd);
        }
    }
}

static ssize_t receive_message(int fd, struct msghdr *message, int flags) {
    struct slot slot;
    if (is_datagram(fd, &slot))
        return zt_datagram_receive(fd, &slot, message, flags);
    if (is_odd_stream(fd, flags)) {
        if (flags & MSG_ERRQUEUE)
            return fail(EAGAIN);
        size_t length = 0;
        for (size_t at = 0; at < message->msg_iovlen; at++)
            length += message->msg_iov[at].iov_len;
        message->msg_namelen = 0;
        message->msg_controllen = 0;
        message->msg_flags = 0;
        return discard(fd, length, flags);
    }
    if (UNLIKELY(is_opening(fd)) && is_unconnected(fd))
        return fail(ENOTCONN);
    bool has_control = message->msg_control != NULL && message->msg_controllen > 0;
    ssize_t result = real()->recvmsg(fd, message, flags);
    if (UNLIKELY(result <= 0))
        return after_receive(fd, result);
    if ( has_control && message->msg_controllen > 0)
        adopt_descriptors(message);
    return result;
}

EXPORT(ssize_t, zt_recv, "recv", (int fd, void *room, size_t length, int flags)) {
    if (kind_of(fd) == KIND_NATIVE && !(flags & (MSG_TRUNC | MSG_ERRQUEUE))) {
        ssize_t result = real()->recv(fd, room, length, flags);
        return UNLIKELY(result <= 0) ? after_receive(fd, result) : result;
    }
    struct iovec piece;
    struct msghdr message = message_of(&piece, room, length);
    return receive_message(fd, &message, flags);
}
ALIAS(zt_recv, "recv", __recv);

EXPORT(ssize_t, zt_recv_chk, "__recv_chk",
       (int fd, void *room, size_t length, size_t limit, int flags)) {
    if (length > limit)
        __builtin_trap(); /* as _FORTIFY_SOURCE promises: the program would overrun its buffer */
    return zt_recv(fd, room, length, flags);
}

EXPORT(ssize_t, zt_recvfrom, "recvfrom",
       (int fd, void *room, size_t length, int flags, void *address, socklen_t *address_length)) {
    if (kind_of(fd) == KIND_NATIVE && !(flags & (MSG_TRUNC | MSG_ERRQUEUE))) {
        ssize_t result = real()->recvfrom(fd, room, length, flags, address, address_length);
        return UNLIKELY(result <= 0) ? after_receive(fd, result) : result;
    }
    struct iovec piece;
    struct msghdr message = message_of(&piece, room, length);
    if (address != NULL && address_length != NULL) {
        if ((int)*address_length < 0)
            return fail(EINVAL);
        message.msg_name = address;
        message.msg_namelen = *address_length;
    }
    ssize_t result = receive_message(fd, &message, flags);
    if (result >= 0 && address != NULL && address_length != NULL)
        *address_length = message.msg_namelen;
    return result;
}
ALIAS(zt_recvfrom, "recvfrom", __recvfrom);

EXPORT(ssize_t, zt_recvfrom_chk, "__recvfrom_chk",
       (int fd, void *room, size_t length, size_t limit, int flags, void *address,
        socklen_t *address_length)) {
    if (length > limit)
        __builtin_trap();
    return zt_recvfrom(fd, room, length, flags, address, address_length);
}

EXPORT(ssize_t, zt_recvmsg, "recvmsg", (int fd, struct msghdr *message, int flags)) {
    return receive_message(fd, message, flags);
}
ALIAS(zt_recvmsg, "recvmsg", __recvmsg);

static bool is_over(const struct timespec *deadline) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > deadline->tv_sec ||
           (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec);
}

EXPORT(int, zt_recvmmsg, "recvmmsg",
       (int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)) {
    struct slot slot;
    if (!is_datagram(fd, &slot))
        return real()->recvmmsg(fd, messages, count, flags, timeout);
    struct timespec deadline = {0};
    if (timeout != NULL) {
        if (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)
            return fail(EINVAL);
        clock_gettime(CLOCK_MONOTONIC, &deadline);
        deadline.tv_sec += timeout->tv_sec;
        deadline.tv_nsec += timeout->tv_nsec;
        if (deadline.tv_nsec >= 1000000000) {
            deadline.tv_sec++;
            deadline.tv_nsec -= 1000000000;
        }
    }
    unsigned taken = 0;
    while (taken < count) {
        ssize_t length =
            zt_datagram_receive(fd, &slot, &messages[taken].msg_hdr, flags & ~MSG_WAITFORONE);
        if (length < 0)
            break;
        messages[taken++].msg_len = (unsigned)length;
        if (flags & MSG_WAITFORONE)
            flags |= MSG_DONTWAIT;
        /* The kernel looks at the clock only after each datagram, see recvmmsg(2) BUGS. */
        if (timeout != NULL && is_over(&deadline))
            break;
    }
    return taken > 0 || count == 0 ? (int)taken : -1;
}

EXPORT(ssize_t, zt_read, "read", (int fd, void *room, size_t length)) {
    if (UNLIKELY(kind_of(fd) != KIND_NATIVE)) {
        struct slot slot;
        if (is_datagram(fd, &slot)) {
            struct iovec piece;
            struct msghdr message = message_of(&piece, room, length);
            return zt_datagram_receive(fd, &slot, &message, 0);
        }
        if (is_opening(fd) && is_unconnected(fd))
            return fail(ENOTCONN);
    }
    ssize_t result = real()->read(fd, room, length);
    return UNLIKELY(result <= 0) ? after_receive(fd, result) : result;
}
ALIAS(zt_read, "read", __read);

EXPORT(ssize_t, zt_read_chk, "__read_chk", (int fd, void *room, size_t length, size_t limit)) {
    if (length > limit)
        __builtin_trap();
    return zt_read(fd, room, length);
}

EXPORT(ssize_t, zt_readv, "readv", (int fd, const struct iovec *pieces, int count)) {
    if (UNLIKELY(kind_of(fd) != KIND_NATIVE)) {
        struct slot slot;
        if (is_datagram(fd, &slot)) {
            struct msghdr message = {
                .msg_iov = (struct iovec *)(uintptr_t)pieces,
                .msg_iovlen = (size_t)(count < 0 ? 0 : count),
            };
            return zt_datagram_receive(fd, &slot, &message, 0);
        }
        if (is_opening(fd) && is_unconnected(fd))
            return fail(ENOTCONN);
    }
    ssize_t result = real()->readv(fd, pieces, count);
    return UNLIKELY(result <= 0) ? after_receive(fd, result) : result;
}
