/*
 * The seed's own way to a socket: the connection that carries the request becomes the socket.
 *
 * For sandboxes in which no descriptor can be received (ZTTRIO_REPURPOSE=1).  Streams only, and
 * dearer than a descriptor in the answer.
 */
#include "shim.h"

#include <sys/un.h>

#define APP_SEND_BUFFER 140000 /* see APP_SEND_BUFFER in zttrio/tap/standin.py */

static int fail(int error) {
    errno = error;
    return -1;
}

static bool ask(int fd, int domain, int type, int32_t protocol, struct zt_header *answer) {
    struct {
        struct zt_header head;
        int32_t protocol;
    } request = {
        .head =
            {
                .magic = ZT_MAGIC,
                .major = ZT_MAJOR,
                .op = ZT_OP_SOCKET,
                .seq = 1,
                .length = sizeof protocol,
                .a = domain,
                .b = type,
            },
        .protocol = protocol,
    };
    if (!zt_cookie(fd, &request.head.sock))
        return false;
    size_t length = sizeof request.head + sizeof request.protocol;
    return real()->send(fd, &request, length, MSG_NOSIGNAL) == (ssize_t)length &&
           real()->recv(fd, answer, sizeof *answer, MSG_WAITALL) == (ssize_t)sizeof *answer &&
           answer->magic == ZT_MAGIC && answer->op == (ZT_OP_SOCKET | ZT_ANSWER_BIT);
}

/* socket() for a stream; -1 and errno, or the descriptor, which still has to get its flags. */
int zt_repurpose(int domain, int type, int protocol, struct slot *slot) {
    struct sockaddr_un address;
    socklen_t length = zt_service_address(&address, ".s");
    int fd = real()->socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int room = APP_SEND_BUFFER;
    struct timeval patience = {.tv_sec = 30};
    struct timeval none = {0};
    struct zt_header answer;
    sigset_t all, mask;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &mask);
    real()->setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    real()->setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    bool is_answered = real()->connect(fd, &address, length) == 0 &&
                       ask(fd, domain, type, protocol, &answer);
    real()->setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    if (!is_answered || answer.a < 0) {
        real()->close(fd);
        return fail(is_answered ? answer.b : ENETDOWN);
    }
    *slot = (struct slot){
        .cookie = answer.sock,
        .domain = (uint8_t)domain,
        .type = SOCK_STREAM,
        .protocol = (uint16_t)answer.a,
        .flags = SLOT_FRESH,
    };
    return fd;
}
