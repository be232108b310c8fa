/*
 * Start of the preload library: the environment, the real functions, what fork needs.
 */
#include "shim.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

struct real zt_real;
_Atomic bool zt_is_ready;
struct environment zt_environment;
_Atomic pid_t zt_process;

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Joins two texts; false if they do not fit. */
static bool join(char *room, size_t size, const char *first, const char *second) {
    size_t a = strlen(first), b = strlen(second);
    if (a + b >= size)
        return false;
    memcpy(room, first, a);
    memcpy(room + a, second, b + 1);
    return true;
}

static void read_environment(void) {
    const char *address = getenv("ZTTRIO_NET");
    if (address == NULL || *address == '\0')
        address = getenv("ZT_NC_NETWORK"); /* the seed's name for it */
    if (address != NULL && strlen(address) < sizeof zt_environment.address) {
        strcpy(zt_environment.address, address);
        join(zt_environment.address_entry, sizeof zt_environment.address_entry, "ZTTRIO_NET=",
             address);
    }
    Dl_info info;
    if (dladdr(&zt_environment, &info) != 0 && info.dli_fname != NULL &&
        strlen(info.dli_fname) < sizeof zt_environment.preload)
        strcpy(zt_environment.preload, info.dli_fname);
    const char *preload = getenv("LD_PRELOAD");
    if (preload == NULL || strstr(preload, zt_environment.preload) == NULL)
        preload = zt_environment.preload;
    if (!join(zt_environment.preload_entry, sizeof zt_environment.preload_entry, "LD_PRELOAD=",
              preload))
        join(zt_environment.preload_entry, sizeof zt_environment.preload_entry, "LD_PRELOAD=",
             zt_environment.preload);
    const char *repurpose = getenv("ZTTRIO_REPURPOSE");
    zt_environment.repurposes = repurpose != NULL && strcmp(repurpose, "1") == 0;
    zt_environment.wait_ms = 5000;
    const char *wait = getenv("ZTTRIO_WAIT");
    if (wait != NULL && *wait != '\0') {
        char *end;
        double seconds = strtod(wait, &end);
        if (*end == '\0' && seconds >= 0 && seconds <= 86400)
            zt_environment.wait_ms = (int)(seconds * 1000);
    }
}

static void forked_in_child(void) {
    atomic_store(&zt_process, getpid());
    zt_forget_channels();
}

/* May run inside an allocator's own start, which calls syscall(): nothing in here allocates. */
static void initialise_once(void) {
    int saved = errno;
#define RESOLVE(type, name, parameters)                                                             \
    *(void **)(void *)&zt_real.name = dlsym(RTLD_NEXT, #name);
    REAL_FUNCTIONS(RESOLVE)
#undef RESOLVE
    read_environment();
    atomic_store(&zt_process, getpid());
    atomic_store_explicit(&zt_is_ready, true, memory_order_release);
    errno = saved;
}

void zt_initialise(void) { pthread_once(&once, initialise_once); }

__attribute__((constructor)) static void start(void) {
    zt_initialise();
    pthread_atfork(zt_forking, zt_forking, forked_in_child);
    zt_adopt_inherited();
}
