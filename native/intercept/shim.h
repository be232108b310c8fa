/*
 * What the files of the preload library share.
 *
 * The library gives an unmodified program sockets of the tap service.  It keeps nothing that has to
 * be right: what a descriptor is can always be found out again from the kernel (SO_COOKIE,
 * SO_PEERCRED) and from the service.  The tables here only save the asking.
 *
 * Rules for everything in here: no lock is held across a wait; errno is left alone on success;
 * nothing allocates except the functions whose result is allocated by contract (getaddrinfo and
 * friends); whatever a vfork child may call touches no state of its parent.
 */
#ifndef ZTTRIO_SHIM_H
#define ZTTRIO_SHIM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../rpc.h"

/*
 * EXPORT(return type, our name, exported name, parameters) declares and opens a wrapper.  Our own
 * name keeps the prototypes of the system's headers (transparent unions, _FORTIFY_SOURCE inlines)
 * out of the way; the program sees the exported one.
 */
#define EXPORT(type, name, symbol, parameters)                                                      \
    __attribute__((visibility("default"))) type name parameters __asm__(symbol);                   \
    type name parameters

/* Another exported name of the same function. */
#define ALIAS(name, symbol, other)                                                                  \
    __attribute__((visibility("default"), alias(symbol))) extern __typeof__(name) name##_##other   \
        __asm__(#other)

#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/*
 * The functions we stand in front of, as the next library has them (RTLD_NEXT).  All of them must
 * exist: looking for one that does not would allocate, and the first caller may be an allocator.
 */
#define REAL_FUNCTIONS(X)                                                                           \
    X(int, socket, (int, int, int))                                                                 \
    X(int, bind, (int, const void *, socklen_t))                                                    \
    X(int, connect, (int, const void *, socklen_t))                                                 \
    X(int, listen, (int, int))                                                                      \
    X(int, accept, (int, void *, socklen_t *))                                                      \
    X(int, accept4, (int, void *, socklen_t *, int))                                                \
    X(int, getsockname, (int, void *, socklen_t *))                                                 \
    X(int, getpeername, (int, void *, socklen_t *))                                                 \
    X(int, getsockopt, (int, int, int, void *, socklen_t *))                                        \
    X(int, setsockopt, (int, int, int, const void *, socklen_t))                                    \
    X(int, shutdown, (int, int))                                                                    \
    X(ssize_t, send, (int, const void *, size_t, int))                                              \
    X(ssize_t, sendto, (int, const void *, size_t, int, const void *, socklen_t))                   \
    X(ssize_t, sendmsg, (int, const struct msghdr *, int))                                          \
    X(int, sendmmsg, (int, struct mmsghdr *, unsigned, int))                                        \
    X(ssize_t, recv, (int, void *, size_t, int))                                                    \
    X(ssize_t, recvfrom, (int, void *, size_t, int, void *, socklen_t *))                           \
    X(ssize_t, recvmsg, (int, struct msghdr *, int))                                                \
    X(int, recvmmsg, (int, struct mmsghdr *, unsigned, int, struct timespec *))                     \
    X(ssize_t, read, (int, void *, size_t))                                                         \
    X(ssize_t, readv, (int, const struct iovec *, int))                                             \
    X(ssize_t, write, (int, const void *, size_t))                                                  \
    X(ssize_t, writev, (int, const struct iovec *, int))                                            \
    X(int, close, (int))                                                                            \
    X(int, fclose, (FILE *))                                                                        \
    X(int, dup, (int))                                                                              \
    X(int, dup2, (int, int))                                                                        \
    X(int, dup3, (int, int, int))                                                                   \
    X(int, fcntl, (int, int, ...))                                                                  \
    X(int, ioctl, (int, unsigned long, ...))                                                        \
    X(long, syscall, (long, ...))                                                                   \
    X(int, execve, (const char *, char *const *, char *const *))                                    \
    X(int, execvpe, (const char *, char *const *, char *const *))                                   \
    X(int, fexecve, (int, char *const *, char *const *))                                            \
    X(int, posix_spawn,                                                                             \
      (pid_t *, const char *, const void *, const void *, char *const *, char *const *))            \
    X(int, posix_spawnp,                                                                            \
      (pid_t *, const char *, const void *, const void *, char *const *, char *const *))            \
    X(int, getnameinfo,                                                                             \
      (const void *, socklen_t, char *, socklen_t, char *, socklen_t, int))                         \
    X(int, system, (const char *))                                                                  \
    X(FILE *, popen, (const char *, const char *))

struct real {
#define DECLARE(type, name, parameters) type(*name) parameters;
    REAL_FUNCTIONS(DECLARE)
#undef DECLARE
};

extern struct real zt_real;
extern _Atomic bool zt_is_ready;
void zt_initialise(void);

/* The next library's functions; sets them up when a wrapper runs before our constructor did. */
static inline struct real *real(void) {
    if (UNLIKELY(!atomic_load_explicit(&zt_is_ready, memory_order_acquire)))
        zt_initialise();
    return &zt_real;
}

/* What was in the environment when the program started; programs such as nginx clear theirs. */
#define ENVIRONMENT_ROOM 4096
struct environment {
    char address[108];      /* the service: a path, or '@' and an abstract name; "" if not set */
    char preload[PATH_MAX]; /* this library, as LD_PRELOAD named it */
    char preload_entry[ENVIRONMENT_ROOM]; /* "LD_PRELOAD=...", to be given to other programs */
    char address_entry[160];              /* "ZTTRIO_NET=..." */
    int wait_ms;                          /* ZTTRIO_WAIT: how long to wait for an absent service */
    bool repurposes;                      /* ZTTRIO_REPURPOSE: make streams as the seed did */
};
extern struct environment zt_environment;

/* The process whose descriptor numbers the tables are about. */
extern _Atomic pid_t zt_process;

/* False in a vfork child, which shares our memory but not our descriptors. */
static inline bool is_own_process(void) {
    return getpid() == atomic_load_explicit(&zt_process, memory_order_relaxed);
}

/* ---- descriptors (descriptor.c) ---- */

/* How `read` and friends have to treat a descriptor; 0 means: let the kernel do it. */
#define KIND_NATIVE 0
#define KIND_DATAGRAM 1   /* every message has a header */
#define KIND_OPENING 2    /* a stream that is not known to be connected: fresh, listening, connecting */
#define KIND_UNKNOWN 3    /* a number too high for the tables: has to be asked about each time */

/* What is known about a stand-in; valid as long as the descriptor's SO_COOKIE is `cookie`. */
struct slot {
    uint64_t cookie;
    uint8_t domain;
    uint8_t type;
    uint16_t protocol;
    uint8_t flags;
    uint8_t generation;
    uint8_t reserved[2];
};
#define SLOT_FRESH 1     /* made here, nobody else has it, nothing was done to it yet */
#define SLOT_LISTENING 2 /* accept() may take records from it */
#define SLOT_CONNECTED 4 /* the datagram socket has a peer; the stream was established */

#define DESCRIPTORS 65536 /* numbers above are asked about each time */
extern uint8_t zt_kinds[DESCRIPTORS];

static inline uint8_t kind_of(int fd) {
    return UNLIKELY((unsigned)fd >= DESCRIPTORS) ? KIND_UNKNOWN : zt_kinds[fd];
}

bool zt_cookie(int fd, uint64_t *cookie);
bool zt_identify(int fd, struct slot *slot);
void zt_remember(int fd, const struct slot *slot, uint8_t kind);
void zt_set_flags(int fd, uint8_t set, uint8_t clear);
void zt_set_kind(int fd, uint8_t kind);
void zt_forget(int fd);
void zt_copy(int from, int to);
int zt_state(int fd, const struct slot *slot);
void zt_forking(void);
void zt_adopt_inherited(void);
void zt_adopt_received(int fd);
int zt_open_flags(int fd, int type);

/* ---- the control channel (channel.c) ---- */

struct call {
    /* in */
    uint8_t op;
    uint16_t flags;
    uint64_t sock;
    int32_t a, b;
    const void *payload;
    uint32_t length;
    bool wants_descriptor;
    bool is_blocking;   /* wait with the program's own signal mask */
    int timeout_ms;     /* for a blocking call, -1 for ever */
    void *room;         /* for the answer's payload */
    uint32_t room_size;
    /* out */
    int32_t ret, err;
    uint16_t answer_flags;
    uint64_t answer_sock;
    uint32_t answer_length; /* of the payload, as sent; at most room_size of it were stored */
    int descriptor;         /* came with the answer, or -1 */
};

#define CALL_OK 0
#define CALL_FAILED -1    /* no service; errno is ENETDOWN */
#define CALL_EINTR -2     /* a signal interrupted a blocking call */
#define CALL_TIMEOUT -3   /* timeout_ms passed */
int zt_call(struct call *call);
int zt_call_simple(struct call *call); /* zt_call, then errno from the answer; returns ret */
void zt_note(const char *text);
bool zt_is_channel(int fd);
void zt_drop_channel(int fd);
void zt_forget_channels(void);
struct sockaddr_un;
socklen_t zt_service_address(struct sockaddr_un *address, const char *suffix);
bool zt_is_strict(void);
bool zt_has_feature(uint64_t feature);
pid_t zt_service_pid(bool may_wait);

/* ---- datagram stand-ins (datagram.c) ---- */

ssize_t zt_datagram_send(int fd, const struct slot *slot, const struct msghdr *message, int flags);
ssize_t zt_datagram_receive(int fd, const struct slot *slot, struct msghdr *message, int flags);
int zt_datagram_pending_error(int fd);
int zt_datagram_available(int fd);

/* ---- the seed's way to a socket (repurpose.c) ---- */

int zt_repurpose(int domain, int type, int protocol, struct slot *slot);

/* ---- sockets (socket.c) ---- */

int zt_replace_with_host(int fd, const struct slot *slot, const uint8_t *options, uint32_t length);

#endif
