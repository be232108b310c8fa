/*
 * The calls that give descriptor numbers a new meaning, and ioctl and syscall.
 *
 * The program must not close the control channels, which it does not know about; many a daemon
 * closes every number it can think of.  In a vfork child nothing here touches any state.
 */
#include "shim.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

static int fail(int error) {
    errno = error;
    return -1;
}

static bool is_protected(int fd) { return zt_is_channel(fd) && is_own_process(); }

/* ---- close ---- */

EXPORT(int, zt_close, "close", (int fd)) {
    if (is_protected(fd))
        return fail(EBADF);
    zt_forget(fd);
    return real()->close(fd);
}
ALIAS(zt_close, "close", __close);

EXPORT(int, zt_fclose, "fclose", (FILE * file)) {
    if (file != NULL) {
        int saved = errno, fd = fileno(file);
        if (fd >= 0)
            zt_forget(fd);
        errno = saved;
    }
    return real()->fclose(file);
}

static int range(unsigned first, unsigned last, int flags) {
    return (int)real()->syscall(SYS_close_range, first, last, flags);
}

EXPORT(int, zt_close_range, "close_range", (unsigned first, unsigned last, int flags)) {
    if (first > last || !is_own_process())
        return range(first, last, flags);
    if (flags & CLOSE_RANGE_UNSHARE) { /* must come first: from here on the numbers are our own */
        if (range(UINT_MAX, UINT_MAX, flags) < 0)
            return -1;
        flags &= ~(int)CLOSE_RANGE_UNSHARE;
    }
    unsigned from = first;
    for (unsigned fd = first; fd <= last && fd < DESCRIPTORS; fd++) {
        if (zt_is_channel((int)fd)) {
            if (from < fd && range(from, fd - 1, flags) < 0)
                return -1;
            from = fd + 1;
        } else if (!(flags & (int)CLOSE_RANGE_CLOEXEC)) {
            zt_forget((int)fd);
        }
    }
    return from > last ? 0 : range(from, last, flags);
}

EXPORT(void, zt_closefrom, "closefrom", (int low)) {
    zt_close_range((unsigned)(low < 0 ? 0 : low), UINT_MAX, 0);
}

/* ---- dup ---- */

EXPORT(int, zt_dup, "dup", (int fd)) {
    int copy = real()->dup(fd);
    if (copy >= 0)
        zt_copy(fd, copy);
    return copy;
}

/* The owner of a channel that is overwritten notices by its cookie, and opens another. */
static void make_way(int fd) {
    if (is_protected(fd))
        zt_drop_channel(fd);
}

EXPORT(int, zt_dup2, "dup2", (int fd, int number)) {
    if (fd != number)
        make_way(number);
    int copy = real()->dup2(fd, number);
    if (copy >= 0)
        zt_copy(fd, copy);
    return copy;
}
ALIAS(zt_dup2, "dup2", __dup2);

EXPORT(int, zt_dup3, "dup3", (int fd, int number, int flags)) {
    if (fd != number)
        make_way(number);
    int copy = real()->dup3(fd, number, flags);
    if (copy >= 0)
        zt_copy(fd, copy);
    return copy;
}

EXPORT(int, zt_fcntl, "fcntl", (int fd, int command, ...)) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    int result = real()->fcntl(fd, command, argument);
    if (result >= 0 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC))
        zt_copy(fd, result);
    return result;
}
ALIAS(zt_fcntl, "fcntl", fcntl64);
ALIAS(zt_fcntl, "fcntl", __fcntl);

/* ---- ioctl ---- */

static bool is_interface_request(unsigned long request) {
    return request >= 0x8910 && request <= 0x897f; /* SIOCGIFNAME ... SIOCGIFMAP and neighbours */
}

static int list_interfaces(struct ifconf *config) {
    if (config == NULL)
        return fail(EFAULT);
    uint8_t rows[ZT_PAYLOAD_LIMIT];
    struct call call = {
        .op = ZT_OP_IOCTL,
        .a = (int32_t)SIOCGIFCONF,
        .room = rows,
        .room_size = sizeof rows,
    };
    if (zt_call_simple(&call) < 0)
        return -1;
    int length = (int)call.answer_length;
    if (config->ifc_buf != NULL) {
        int whole = config->ifc_len / (int)sizeof(struct ifreq) * (int)sizeof(struct ifreq);
        length = length < whole ? length : whole;
        if (length < 0)
            return fail(EINVAL);
        memcpy(config->ifc_buf, rows, (size_t)length);
    }
    config->ifc_len = length;
    return 0;
}

static int ask_interface(unsigned long request, struct ifreq *interface) {
    if (interface == NULL)
        return fail(EFAULT);
    struct call call = {
        .op = ZT_OP_IOCTL,
        .a = (int32_t)request,
        .payload = interface,
        .length = sizeof *interface,
        .room = interface,
        .room_size = sizeof *interface,
    };
    return zt_call_simple(&call);
}

static int ask_queue(const struct slot *slot, unsigned long request, int *number) {
    struct call call = {
        .op = ZT_OP_IOCTL,
        .sock = slot->cookie,
        .a = (int32_t)request,
        .room = number,
        .room_size = sizeof *number,
    };
    return zt_call_simple(&call);
}

EXPORT(int, zt_ioctl, "ioctl", (int fd, unsigned long request, ...)) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    struct slot slot;
    if (is_interface_request(request)) {
        uint64_t cookie;
        if (!zt_cookie(fd, &cookie)) /* not even a socket: whatever it is, it is not ours */
            return real()->ioctl(fd, request, argument);
        return request == SIOCGIFCONF ? list_interfaces(argument)
                                      : ask_interface(request, argument);
    }
    if (request == SIOCOUTQ || (request == FIONREAD && kind_of(fd) != KIND_NATIVE)) {
        if (zt_identify(fd, &slot)) {
            if (argument == NULL)
                return fail(EFAULT);
            if (request == SIOCOUTQ)
                return ask_queue(&slot, request, argument);
            if (slot.type != SOCK_STREAM) {
                *(int *)argument = zt_datagram_available(fd);
                return 0;
            }
        }
    }
    return real()->ioctl(fd, request, argument);
}

/* ---- io_uring: its operations would make kernel sockets behind our back ---- */

static bool uring_is_allowed(void) { return !zt_is_strict(); }

/*
 * liburing makes its system calls itself, so its own entry points have to say no.  They are looked
 * up here and not at the start, because most programs do not have them.
 */
EXPORT(int, zt_uring_init, "io_uring_queue_init", (unsigned entries, void *ring, unsigned flags)) {
    int (*next)(unsigned, void *, unsigned);
    if (!uring_is_allowed())
        return -ENOSYS;
    *(void **)(void *)&next = dlsym(RTLD_NEXT, "io_uring_queue_init");
    return next != NULL ? next(entries, ring, flags) : -ENOSYS;
}

EXPORT(int, zt_uring_init_params, "io_uring_queue_init_params",
       (unsigned entries, void *ring, void *parameters)) {
    int (*next)(unsigned, void *, void *);
    if (!uring_is_allowed())
        return -ENOSYS;
    *(void **)(void *)&next = dlsym(RTLD_NEXT, "io_uring_queue_init_params");
    return next != NULL ? next(entries, ring, parameters) : -ENOSYS;
}

/* ---- syscall(3) ---- */

int zt_socket(int, int, int) __asm__("socket");
int zt_bind(int, const void *, socklen_t) __asm__("bind");
int zt_connect(int, const void *, socklen_t) __asm__("connect");
int zt_listen(int, int) __asm__("listen");
int zt_accept(int, void *, socklen_t *) __asm__("accept");
int zt_accept4(int, void *, socklen_t *, int) __asm__("accept4");
int zt_getsockname(int, void *, socklen_t *) __asm__("getsockname");
int zt_getpeername(int, void *, socklen_t *) __asm__("getpeername");
int zt_getsockopt(int, int, int, void *, socklen_t *) __asm__("getsockopt");
int zt_setsockopt(int, int, int, const void *, socklen_t) __asm__("setsockopt");
int zt_shutdown(int, int) __asm__("shutdown");
ssize_t zt_sendto(int, const void *, size_t, int, const void *, socklen_t) __asm__("sendto");
ssize_t zt_sendmsg(int, const struct msghdr *, int) __asm__("sendmsg");
int zt_sendmmsg(int, struct mmsghdr *, unsigned, int) __asm__("sendmmsg");
ssize_t zt_recvfrom(int, void *, size_t, int, void *, socklen_t *) __asm__("recvfrom");
ssize_t zt_recvmsg(int, struct msghdr *, int) __asm__("recvmsg");
int zt_recvmmsg(int, struct mmsghdr *, unsigned, int, struct timespec *) __asm__("recvmmsg");
ssize_t zt_read(int, void *, size_t) __asm__("read");
ssize_t zt_readv(int, const struct iovec *, int) __asm__("readv");
ssize_t zt_write(int, const void *, size_t) __asm__("write");
ssize_t zt_writev(int, const struct iovec *, int) __asm__("writev");
int zt_execve(const char *, char *const *, char *const *) __asm__("execve");
int zt_execveat(int, const char *, char *const *, char *const *, int) __asm__("execveat");

#define P(n) ((void *)a[n])
#define I(n) ((int)a[n])

EXPORT(long, zt_syscall, "syscall", (long number, ...)) {
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int at = 0; at < 6; at++)
        a[at] = va_arg(arguments, long);
    va_end(arguments);
    switch (number) {
    case SYS_socket:
        return zt_socket(I(0), I(1), I(2));
    case SYS_bind:
        return zt_bind(I(0), P(1), (socklen_t)a[2]);
    case SYS_connect:
        return zt_connect(I(0), P(1), (socklen_t)a[2]);
    case SYS_listen:
        return zt_listen(I(0), I(1));
    case SYS_accept:
        return zt_accept(I(0), P(1), P(2));
    case SYS_accept4:
        return zt_accept4(I(0), P(1), P(2), I(3));
    case SYS_getsockname:
        return zt_getsockname(I(0), P(1), P(2));
    case SYS_getpeername:
        return zt_getpeername(I(0), P(1), P(2));
    case SYS_getsockopt:
        return zt_getsockopt(I(0), I(1), I(2), P(3), P(4));
    case SYS_setsockopt:
        return zt_setsockopt(I(0), I(1), I(2), P(3), (socklen_t)a[4]);
    case SYS_shutdown:
        return zt_shutdown(I(0), I(1));
    case SYS_sendto:
        return zt_sendto(I(0), P(1), (size_t)a[2], I(3), P(4), (socklen_t)a[5]);
    case SYS_sendmsg:
        return zt_sendmsg(I(0), P(1), I(2));
    case SYS_sendmmsg:
        return zt_sendmmsg(I(0), P(1), (unsigned)a[2], I(3));
    case SYS_recvfrom:
        return zt_recvfrom(I(0), P(1), (size_t)a[2], I(3), P(4), P(5));
    case SYS_recvmsg:
        return zt_recvmsg(I(0), P(1), I(2));
    case SYS_recvmmsg:
        return zt_recvmmsg(I(0), P(1), (unsigned)a[2], I(3), P(4));
    case SYS_read:
        return zt_read(I(0), P(1), (size_t)a[2]);
    case SYS_readv:
        return zt_readv(I(0), P(1), I(2));
    case SYS_write:
        return zt_write(I(0), P(1), (size_t)a[2]);
    case SYS_writev:
        return zt_writev(I(0), P(1), I(2));
    case SYS_close:
        return zt_close(I(0));
    case SYS_close_range:
        return zt_close_range((unsigned)a[0], (unsigned)a[1], I(2));
    case SYS_dup:
        return zt_dup(I(0));
#ifdef SYS_dup2
    case SYS_dup2:
        return zt_dup2(I(0), I(1));
#endif
    case SYS_dup3:
        return zt_dup3(I(0), I(1), I(2));
    case SYS_fcntl:
        return zt_fcntl(I(0), I(1), P(2));
    case SYS_ioctl:
        return zt_ioctl(I(0), (unsigned long)a[1], P(2));
    case SYS_execve:
        return zt_execve(P(0), P(1), P(2));
    case SYS_execveat:
        return zt_execveat(I(0), P(1), P(2), P(3), I(4));
    case SYS_io_uring_setup:
        if (!uring_is_allowed())
            return fail(ENOSYS);
        break;
    default:
        break;
    }
    return real()->syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
