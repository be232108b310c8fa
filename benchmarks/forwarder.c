/* The anchor's user-space switch: copies every frame from one TAP device to another, both ways.
 *
 * Usage: forwarder NETNS TAP NETNS TAP [offload]
 *
 * Prints a line when it is attached to both, and ends when its standard input does.  With "offload"
 * frames are super-segments with a virtio header, which the kernel on the other side takes as they are.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { FRAME = 1 << 17 };

struct direction {
    int from, to;
};

static void fail(const char *what)
{
    fprintf(stderr, "forwarder: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int attach(const char *netns, const char *tap, int offload)
{
    char path[256];
    struct ifreq request;
    int fd;

    snprintf(path, sizeof path, "/var/run/netns/%s", netns);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
        fail(path);
    close(fd);
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fail("/dev/net/tun");
    memset(&request, 0, sizeof request);
    request.ifr_flags = IFF_TAP | IFF_NO_PI | (offload ? IFF_VNET_HDR : 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", tap);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        fail(tap);
    if (offload && ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0)
        fail("TUNSETOFFLOAD");
    return fd;
}

static void *copy(void *argument)
{
    const struct direction *direction = argument;
    char *frame = malloc(FRAME);

    if (frame == NULL)
        fail("malloc");
    for (;;) {
        ssize_t length = read(direction->from, frame, FRAME);
        if (length <= 0)
            fail("read");
        /* A full or absent receiver loses frames, as behind any switch. */
        if (write(direction->to, frame, (size_t)length) < 0 && errno != ENOBUFS && errno != EIO
            && errno != EAGAIN && errno != EINVAL)
            fail("write");
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct direction forth, back;
    pthread_t threads[2];
    char byte;
    int offload = argc == 6 && strcmp(argv[5], "offload") == 0;

    if (argc < 5) {
        fprintf(stderr, "usage: forwarder NETNS TAP NETNS TAP [offload]\n");
        return 2;
    }
    forth.from = back.to = attach(argv[1], argv[2], offload);
    forth.to = back.from = attach(argv[3], argv[4], offload);
    if (pthread_create(&threads[0], NULL, copy, &forth) || pthread_create(&threads[1], NULL, copy, &back))
        fail("pthread_create");
    puts("ready");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
