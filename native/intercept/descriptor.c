/*
 * What a descriptor number stands for.
 *
 * The kernel knows: a stand-in is an AF_UNIX socket without a name whose creator is the service,
 * and its SO_COOKIE is what the service calls it.  Both survive dup, fork, exec and SCM_RIGHTS.
 * The slots only remember answers; each is checked against the cookie before it is used.
 */
#include "shim.h"

#include <fcntl.h>
#include <sys/un.h>

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

uint8_t zt_kinds[DESCRIPTORS];
static struct slot slots[DESCRIPTORS];
static _Atomic uint8_t generation; /* of forks: what was fresh before one no longer is */

void zt_forking(void) { atomic_fetch_add(&generation, 1); }

bool zt_cookie(int fd, uint64_t *cookie) {
    int saved = errno;
    socklen_t length = sizeof *cookie;
    bool is_socket = real()->getsockopt(fd, SOL_SOCKET, SO_COOKIE, cookie, &length) == 0;
    errno = saved;
    return is_socket;
}

/* The program is about to use the number for something else, or has. */
void zt_forget(int fd) {
    if ((unsigned)fd < DESCRIPTORS && slots[fd].cookie != 0 && is_own_process()) {
        zt_kinds[fd] = KIND_NATIVE;
        slots[fd].cookie = 0;
    }
}

void zt_remember(int fd, const struct slot *slot, uint8_t kind) {
    if ((unsigned)fd < DESCRIPTORS && is_own_process()) {
        slots[fd] = *slot;
        slots[fd].generation = atomic_load(&generation);
        zt_kinds[fd] = kind;
    }
}

void zt_set_flags(int fd, uint8_t set, uint8_t clear) {
    if ((unsigned)fd < DESCRIPTORS && is_own_process())
        slots[fd].flags = (uint8_t)((slots[fd].flags & ~clear) | set);
}

void zt_set_kind(int fd, uint8_t kind) {
    if ((unsigned)fd < DESCRIPTORS && is_own_process())
        zt_kinds[fd] = kind;
}

/* After dup: two numbers for one socket, so neither knows any more what the other did to it. */
void zt_copy(int from, int to) {
    if ((unsigned)to >= DESCRIPTORS || from == to)
        return;
    if ((unsigned)from >= DESCRIPTORS || slots[from].cookie == 0) {
        zt_forget(to);
    } else if (is_own_process()) {
        slots[from].flags &= (uint8_t)~SLOT_FRESH;
        slots[to] = slots[from];
        zt_kinds[to] = zt_kinds[from];
    }
}

static bool number_option(int fd, int option, int *value) {
    socklen_t length = sizeof *value;
    return real()->getsockopt(fd, SOL_SOCKET, option, value, &length) == 0;
}

/* Could it be ours, as far as the kernel can tell?  Almost everything else is sorted out here. */
static bool may_be_ours(int fd, bool may_wait) {
    int domain, type;
    if (!number_option(fd, SO_DOMAIN, &domain) || domain != AF_UNIX ||
        !number_option(fd, SO_TYPE, &type) || type == SOCK_DGRAM)
        return false;
    struct ucred creator;
    socklen_t length = sizeof creator;
    if (real()->getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &creator, &length) < 0 ||
        creator.uid == (uid_t)-1)
        return false; /* not connected */
    struct sockaddr_un name, repurposed;
    length = sizeof name;
    if (real()->getpeername(fd, &name, &length) == 0 && length > sizeof name.sun_family &&
        (length != zt_service_address(&repurposed, ".s") || memcmp(&name, &repurposed, length) != 0))
        return false; /* ends of a pair have no name */
    if (zt_is_channel(fd))
        return false;
    pid_t service = zt_service_pid(may_wait);
    return service >= 0 && creator.pid == service;
}

static bool ask_service(int fd, uint64_t cookie, struct slot *slot, uint8_t *state) {
    struct zt_query_row row;
    struct call call = {
        .op = ZT_OP_QUERY,
        .payload = &cookie,
        .length = sizeof cookie,
        .room = &row,
        .room_size = sizeof row,
    };
    if (zt_call(&call) != CALL_OK || call.ret < 0 || call.answer_length != sizeof row ||
        row.kind == ZT_KIND_NONE)
        return false;
    *slot = (struct slot){
        .cookie = cookie,
        .domain = (uint8_t)row.domain,
        .type = row.kind == ZT_KIND_STREAM ? SOCK_STREAM : SOCK_DGRAM,
        .protocol = row.protocol,
    };
    if (row.state == ZT_STATE_LISTENING)
        slot->flags |= SLOT_LISTENING;
    if (row.state == ZT_STATE_CONNECTED)
        slot->flags |= SLOT_CONNECTED;
    if (state != NULL)
        *state = row.state;
    uint8_t kind = row.state == ZT_STATE_CONNECTED ? KIND_NATIVE : KIND_OPENING;
    zt_remember(fd, slot, slot->type == SOCK_DGRAM ? KIND_DATAGRAM : kind);
    return true;
}

/* Is it a stand-in, and which?  Never sets errno. */
bool zt_identify(int fd, struct slot *slot) {
    uint64_t cookie;
    if (fd < 0)
        return false;
    int saved = errno;
    if ((unsigned)fd < DESCRIPTORS && slots[fd].cookie != 0) {
        *slot = slots[fd];
        if (zt_cookie(fd, &cookie) && cookie == slot->cookie)
            return true;
        zt_forget(fd); /* closed behind our back, and perhaps something else now */
    }
    bool is_ours =
        may_be_ours(fd, false) && zt_cookie(fd, &cookie) && ask_service(fd, cookie, slot, NULL);
    errno = saved;
    return is_ours;
}

/* The state of a stand-in as the service sees it, or -1; asks only if something may have changed. */
int zt_state(int fd, const struct slot *slot) {
    if (slot->flags & SLOT_FRESH && slot->generation == atomic_load(&generation))
        return ZT_STATE_NEW;
    struct slot answer;
    uint8_t state;
    int saved = errno;
    int result = ask_service(fd, slot->cookie, &answer, &state) ? state : -1;
    errno = saved;
    return result;
}

/* At program start: datagram sockets handed down by exec have headers, so they must be known. */
void zt_adopt_inherited(void) {
    int saved = errno;
    struct slot slot;
    for (int fd = 0; fd < 256; fd++) {
        int type;
        if (number_option(fd, SO_TYPE, &type) && type == SOCK_SEQPACKET)
            zt_identify(fd, &slot);
    }
    errno = saved;
}

/* A descriptor that came through SCM_RIGHTS: the same question. */
void zt_adopt_received(int fd) {
    int saved = errno, type;
    struct slot slot;
    zt_forget(fd);
    if (number_option(fd, SO_TYPE, &type) && type == SOCK_SEQPACKET)
        zt_identify(fd, &slot);
    errno = saved;
}

/* Gives a new descriptor the flags that came with the type in socket() or accept4(). */
int zt_open_flags(int fd, int type) {
    if (!(type & SOCK_CLOEXEC) && real()->fcntl(fd, F_SETFD, 0) < 0)
        return -1;
    if (type & SOCK_NONBLOCK)
        return real()->fcntl(fd, F_SETFL, real()->fcntl(fd, F_GETFL) | O_NONBLOCK);
    return 0;
}
