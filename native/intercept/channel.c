/*
 * The control channel: one SOCK_SEQPACKET connection to the tap service for each thread, opened
 * when first needed.  Threads never share one, so a thread that waits delays nobody.
 *
 * Short requests run with all signals blocked, so that socket functions stay usable in signal
 * handlers.  Blocking ones (connect, name resolution) wait with the program's own signal mask, in
 * a plain recvmsg, so that SA_RESTART acts as it does for the kernel's calls.  A handler that needs
 * the service meanwhile gets a channel of its own for that one request.
 */
#include "shim.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#define CHANNEL_NUMBERS 1024 /* channels live below this, where select() users never look first */
#define SHORT_TIMEOUT_MS 30000 /* a service that says nothing for so long counts as gone */
#define RETRY_MS 50
#define LOOK_NS 100000 /* how long to look for an answer; measured: 50 us misses too many */
#define SHARED_NS 30000 /* a yield of that length: others want this processor; arbitrary */
#define LOOK_PAUSE_MAX 63 /* requests in a row that nobody looks for at most; arbitrary */

struct channel {
    pid_t pid; /* who opened it; 0: nobody */
    int fd;
    uint64_t cookie;
    uint32_t seq;
    uint8_t unlooked; /* requests that are still to be slept for at once; see look_briefly */
    uint8_t pause;    /* how many those were the last time */
    bool is_busy; /* a blocking request waits, or the service is being waited for */
};

static __thread struct channel own_channel __attribute__((tls_model("initial-exec")));
static _Atomic uint8_t channel_at[CHANNEL_NUMBERS];
static _Atomic pid_t service_pid;
static _Atomic uint64_t features = ZT_FEATURE_STRICT;
static _Atomic bool was_connected;

static pthread_key_t key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static bool has_key;

static long raw_sigprocmask(int how, const uint64_t *set, uint64_t *old) {
    return real()->syscall(SYS_rt_sigprocmask, how, set, old, (long)sizeof(uint64_t));
}

bool zt_is_channel(int fd) {
    return fd >= 0 && fd < CHANNEL_NUMBERS && atomic_load(&channel_at[fd]) != 0;
}

static void mark(int fd, bool is_channel) {
    if (fd >= 0 && fd < CHANNEL_NUMBERS)
        atomic_store(&channel_at[fd], is_channel);
}

/* Stops looking at a number as a channel; the program is about to give it another meaning. */
void zt_drop_channel(int fd) {
    mark(fd, false);
    if (own_channel.pid != 0 && own_channel.fd == fd)
        own_channel.pid = 0;
}

/* In a forked child: the parent's channels are not ours, though their descriptors were copied. */
void zt_forget_channels(void) {
    for (int fd = 0; fd < CHANNEL_NUMBERS; fd++)
        if (atomic_exchange(&channel_at[fd], 0) != 0)
            real()->close(fd);
    memset(&own_channel, 0, sizeof own_channel);
}

static void close_channel(struct channel *channel) {
    uint64_t cookie;
    if (channel->pid == getpid() && zt_cookie(channel->fd, &cookie) && cookie == channel->cookie) {
        if (channel == &own_channel)
            mark(channel->fd, false);
        real()->close(channel->fd);
    }
    channel->pid = 0;
}

static void thread_ends(void *value) {
    (void)value;
    if (own_channel.pid != 0)
        close_channel(&own_channel);
}

static void make_key(void) { has_key = pthread_key_create(&key, thread_ends) == 0; }

/* The highest free number: out of the way of programs that count on low ones. */
static int move_high(int fd) {
    struct rlimit limit;
    int top = CHANNEL_NUMBERS;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (rlim_t)top)
        top = (int)limit.rlim_cur;
    for (int number = top - 1; number > fd; number--) {
        if (atomic_load(&channel_at[number]) || real()->fcntl(number, F_GETFD) != -1)
            continue;
        int moved = real()->fcntl(fd, F_DUPFD_CLOEXEC, number);
        if (moved < 0)
            break;
        real()->close(fd);
        return moved;
    }
    return fd;
}

/* The service's address with something behind it; its length. */
socklen_t zt_service_address(struct sockaddr_un *address, const char *suffix) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    const char *text = zt_environment.address;
    size_t length = strlen(text), more = strlen(suffix);
    if (length + more >= sizeof address->sun_path)
        more = 0;
    memcpy(address->sun_path, text, length);
    memcpy(address->sun_path + length, suffix, more);
    length += more;
    if (text[0] == '@')
        address->sun_path[0] = '\0';
    else
        length++;
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

static int connect_once(void) {
    struct sockaddr_un address;
    socklen_t length = zt_service_address(&address, "");
    int fd = real()->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    struct timeval patience = {.tv_sec = zt_environment.wait_ms / 1000 + 1};
    real()->setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (real()->connect(fd, &address, length) < 0) {
        int error = errno;
        real()->close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int exchange(struct channel *channel, struct call *call, const uint64_t *mask);

static void read_text(const char *path, char *room, size_t size) {
    int fd = (int)real()->syscall(SYS_openat, (long)AT_FDCWD, path,
                                 (long)(O_RDONLY | O_CLOEXEC));
    ssize_t length = -1;
    if (fd >= 0) {
        length = real()->read(fd, room, size - 1);
        real()->close(fd);
    }
    room[length < 0 ? 0 : length] = '\0'; /* cmdline: its first text is argv[0] */
}

static bool say_hello(struct channel *channel) {
    struct {
        struct zt_hello_request head;
        char texts[1024];
    } request = {.head = {.pid = getpid(), .ppid = getppid()}};
    ssize_t used = readlink("/proc/self/exe", request.texts, 500);
    used = used < 0 ? 0 : used;
    request.texts[used++] = '\0';
    read_text("/proc/self/cmdline", request.texts + used, 500);
    used += (ssize_t)strlen(request.texts + used) + 1;
    struct zt_hello_answer answer;
    struct call call = {
        .op = ZT_OP_HELLO,
        .a = ZT_ABI,
        .payload = &request,
        .length = (uint32_t)(sizeof request.head + (size_t)used),
        .room = &answer,
        .room_size = sizeof answer,
    };
    if (exchange(channel, &call, NULL) != CALL_OK || call.ret < 0 ||
        call.answer_length != sizeof answer)
        return false;
    struct ucred creator;
    socklen_t length = sizeof creator;
    if (real()->getsockopt(channel->fd, SOL_SOCKET, SO_PEERCRED, &creator, &length) == 0)
        atomic_store(&service_pid, creator.pid);
    atomic_store(&features, answer.features);
    return true;
}

static bool try_open(struct channel *channel) {
    int fd = connect_once();
    if (fd < 0)
        return false;
    fd = move_high(fd);
    if (!zt_cookie(fd, &channel->cookie)) {
        real()->close(fd);
        errno = EINVAL;
        return false;
    }
    channel->pid = getpid();
    channel->fd = fd;
    if (channel == &own_channel) /* a spare one closes before anybody could close it */
        mark(fd, true);
    zt_forget(fd);
    if (!say_hello(channel)) {
        close_channel(channel);
        errno = ECONNREFUSED;
        return false;
    }
    atomic_store(&was_connected, true);
    pthread_once(&key_once, make_key);
    if (has_key && channel == &own_channel)
        pthread_setspecific(key, channel);
    return true;
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t now_ms(void) { return now_ns() / 1000000; }

/* Signals are blocked; `mask` is the program's own, which holds while we sleep. */
static bool open_channel(struct channel *channel, const uint64_t *mask, bool may_wait) {
    if (zt_environment.address[0] == '\0')
        return false;
    /* Once there was a service, so if there is none now it died: nobody waits for it. */
    bool waits = may_wait && !atomic_load(&was_connected);
    int64_t deadline = now_ms() + zt_environment.wait_ms;
    while (!try_open(channel)) {
        bool may_come = errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN;
        if (!waits || !may_come || now_ms() >= deadline)
            return false;
        struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};
        uint64_t all = ~UINT64_C(0);
        bool was_busy = channel->is_busy;
        channel->is_busy = true;
        raw_sigprocmask(SIG_SETMASK, mask, NULL);
        nanosleep(&pause, NULL);
        raw_sigprocmask(SIG_SETMASK, &all, NULL);
        channel->is_busy = was_busy;
    }
    return true;
}

static bool is_open(const struct channel *channel) {
    uint64_t cookie;
    return channel->pid == getpid() && zt_cookie(channel->fd, &cookie) && cookie == channel->cookie;
}

static bool send_request(struct channel *channel, const struct call *call) {
    struct zt_header head = {
        .magic = ZT_MAGIC,
        .major = ZT_MAJOR,
        .op = call->op,
        .flags = call->flags,
        .seq = ++channel->seq,
        .length = call->length,
        .sock = call->sock,
        .a = call->a,
        .b = call->b,
    };
    struct iovec pieces[2] = {
        {.iov_base = &head, .iov_len = sizeof head},
        {.iov_base = (void *)(uintptr_t)call->payload, .iov_len = call->length},
    };
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = call->length > 0 ? 2 : 1};
    long sent = real()->syscall(SYS_sendmsg, channel->fd, &message, (long)MSG_NOSIGNAL);
    return sent == (long)(sizeof head + call->length);
}

/* Takes one message; 1: it is the answer, 0: a late answer to something else, -1: see errno. */
static int take_answer(struct channel *channel, struct call *call, int flags) {
    struct zt_header head;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec pieces[2] = {
        {.iov_base = &head, .iov_len = sizeof head},
        {.iov_base = call->room, .iov_len = call->room_size},
    };
    struct msghdr message = {
        .msg_iov = pieces,
        .msg_iovlen = call->room_size > 0 ? 2 : 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    ssize_t length = flags & MSG_DONTWAIT
                         ? real()->syscall(SYS_recvmsg, channel->fd, &message,
                                           (long)(flags | MSG_CMSG_CLOEXEC))
                         : real()->recvmsg(channel->fd, &message, flags | MSG_CMSG_CLOEXEC);
    if (length < 0)
        return -1;
    int descriptor = -1;
    struct cmsghdr *part = message.msg_controllen > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (part != NULL && part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS)
        memcpy(&descriptor, CMSG_DATA(part), sizeof descriptor);
    if (length < (ssize_t)sizeof head || head.magic != ZT_MAGIC || head.major != ZT_MAJOR) {
        if (descriptor >= 0)
            real()->close(descriptor);
        errno = ECONNRESET; /* end of file, or a service of another version */
        return -1;
    }
    if (head.seq != channel->seq || head.op != (call->op | ZT_ANSWER_BIT)) {
        if (descriptor >= 0)
            real()->close(descriptor);
        return 0;
    }
    call->ret = head.a;
    call->err = head.b;
    call->answer_flags = head.flags;
    call->answer_sock = head.sock;
    call->answer_length = head.length;
    call->descriptor = descriptor;
    if (call->wants_descriptor && call->ret >= 0 && descriptor < 0) {
        call->ret = -1; /* MSG_CTRUNC: no number was free here */
        call->err = EMFILE;
    } else if (!call->wants_descriptor && descriptor >= 0) {
        real()->close(descriptor);
        call->descriptor = -1;
    }
    return 1;
}

/*
 * Looks for the answer for a moment before sleeping, as SO_BUSY_POLL does: to wake an idle virtual
 * processor takes longer than the service takes to answer.  It yields in between, because the
 * service may need this very processor.  If another process kept it for long, or nothing came, then
 * nothing is idle and sleeping is cheaper: the next 1, 3, 7 ... 63 requests are not looked for.
 *
 * Returns what take_answer does; 0 if nothing has come.
 */
static int look_briefly(struct channel *channel, struct call *call) {
    if (channel->unlooked > 0) {
        channel->unlooked--;
        return 0;
    }
    int64_t start = now_ns(), before, now = start;
    do {
        int taken = take_answer(channel, call, MSG_DONTWAIT);
        if (taken > 0)
            channel->pause = 0;
        if (taken > 0 || (taken < 0 && errno != EAGAIN))
            return taken;
        sched_yield();
        before = now;
        now = now_ns();
    } while (now - before < SHARED_NS && now - start < LOOK_NS);
    channel->pause = channel->pause < LOOK_PAUSE_MAX ? channel->pause * 2 + 1 : LOOK_PAUSE_MAX;
    channel->unlooked = channel->pause;
    return 0;
}

static int wait_short(struct channel *channel, struct call *call) {
    int looked = look_briefly(channel, call);
    if (looked != 0)
        return looked > 0 ? CALL_OK : CALL_FAILED;
    int64_t deadline = now_ms() + SHORT_TIMEOUT_MS;
    for (;;) {
        int64_t left = deadline - now_ms();
        struct timespec timeout = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
        struct pollfd watched = {.fd = channel->fd, .events = POLLIN};
        if (left <= 0)
            return CALL_FAILED;
        if (real()->syscall(SYS_ppoll, &watched, 1L, &timeout, NULL, 8L) < 0 && errno != EINTR)
            return CALL_FAILED;
        int taken = take_answer(channel, call, MSG_DONTWAIT);
        if (taken > 0)
            return CALL_OK;
        if (taken < 0 && errno != EAGAIN)
            return CALL_FAILED;
    }
}

static int wait_long(struct channel *channel, struct call *call) {
    int64_t deadline = now_ms() + call->timeout_ms;
    for (;;) {
        if (call->timeout_ms >= 0) {
            int64_t left = deadline - now_ms();
            struct pollfd watched = {.fd = channel->fd, .events = POLLIN};
            int ready = left <= 0 ? 0 : poll(&watched, 1, (int)left);
            if (ready < 0)
                return errno == EINTR ? CALL_EINTR : CALL_FAILED;
            if (ready == 0)
                return CALL_TIMEOUT;
        }
        int taken = take_answer(channel, call, 0);
        if (taken > 0)
            return CALL_OK;
        if (taken < 0)
            return errno == EINTR ? CALL_EINTR : CALL_FAILED;
    }
}

/* One request and its answer on an open channel.  Signals are blocked. */
static int exchange(struct channel *channel, struct call *call, const uint64_t *mask) {
    call->descriptor = -1;
    if (!send_request(channel, call))
        return CALL_FAILED;
    if (call->flags & ZT_REQUEST_NOREPLY || call->op == ZT_OP_CANCEL || call->op == ZT_OP_NOTE)
        return CALL_OK;
    if (!call->is_blocking)
        return wait_short(channel, call);
    uint64_t all = ~UINT64_C(0);
    channel->is_busy = true;
    raw_sigprocmask(SIG_SETMASK, mask, NULL);
    int result = wait_long(channel, call);
    int error = errno;
    raw_sigprocmask(SIG_SETMASK, &all, NULL);
    channel->is_busy = false;
    if (result == CALL_EINTR || result == CALL_TIMEOUT) {
        struct call cancel = {.op = ZT_OP_CANCEL, .a = (int32_t)channel->seq};
        send_request(channel, &cancel);
    }
    errno = error;
    return result;
}

static int call_service(struct call *call, bool may_wait, bool use_spare) {
    int saved = errno;
    uint64_t all = ~UINT64_C(0), mask;
    raw_sigprocmask(SIG_BLOCK, &all, &mask);
    struct channel spare = {0};
    struct channel *channel = own_channel.is_busy || use_spare ? &spare : &own_channel;
    if (channel == &own_channel && own_channel.pid != 0 && own_channel.pid != getpid())
        zt_forget_channels(); /* forked by a bare system call */
    bool was_open = is_open(channel);
    int result = CALL_FAILED;
    if (was_open || open_channel(channel, &mask, may_wait)) {
        result = exchange(channel, call, &mask);
        if (result == CALL_FAILED) {
            close_channel(channel);
            /* A channel kept from before may belong to a service that has been restarted. */
            if (was_open && !call->is_blocking && open_channel(channel, &mask, false)) {
                result = exchange(channel, call, &mask);
                if (result == CALL_FAILED)
                    close_channel(channel);
            }
        }
    }
    if (channel == &spare && spare.pid != 0)
        close_channel(&spare);
    raw_sigprocmask(SIG_SETMASK, &mask, NULL);
    errno = result == CALL_FAILED ? ENETDOWN : saved;
    return result;
}

int zt_call(struct call *call) { return call_service(call, true, false); }

int zt_call_simple(struct call *call) {
    if (zt_call(call) != CALL_OK)
        return -1;
    if (call->ret < 0)
        errno = call->err;
    return call->ret;
}

void zt_note(const char *text) {
    struct call call = {.op = ZT_OP_NOTE, .payload = text, .length = (uint32_t)strlen(text)};
    int saved = errno;
    call_service(&call, false, !is_own_process()); /* a vfork child must not touch our channel */
    errno = saved;
}

/* What the service said about itself; nothing before it was asked. */
bool zt_has_feature(uint64_t feature) {
    return atomic_load(&was_connected) && atomic_load(&features) & feature;
}

/* Must what the service cannot carry fail?  Yes, if there is no service to ask. */
bool zt_is_strict(void) {
    if (!atomic_load(&was_connected)) {
        struct call call = {.op = ZT_OP_QUERY};
        int saved = errno;
        call_service(&call, false, !is_own_process());
        errno = saved;
    }
    return atomic_load(&features) & ZT_FEATURE_STRICT;
}

/* The service as the kernel names it in SO_PEERCRED here, or -1 if there is none. */
pid_t zt_service_pid(bool may_wait) {
    if (!is_open(&own_channel) && !atomic_load(&was_connected)) {
        struct call call = {.op = ZT_OP_QUERY};
        int saved = errno;
        if (call_service(&call, may_wait, false) != CALL_OK) {
            errno = saved;
            return -1;
        }
    }
    return atomic_load(&service_pid);
}
