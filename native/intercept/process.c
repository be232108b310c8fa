/*
 * Starting other programs: the preload library has to go with them.
 *
 * Programs clean their environment, so LD_PRELOAD and ZTTRIO_NET are put back.  Where preloading
 * cannot act (static programs, other architectures, programs that change rights) strict mode
 * refuses to start the program, since it would reach the host's network; otherwise it only says so.
 *
 * All of this may run in a vfork child: no allocation, nothing but the stack.
 */
#include "shim.h"

#include <alloca.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

extern char **environ;

/* ---- the environment ---- */

static bool starts_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

static size_t count_of(char *const *list) {
    size_t count = 0;
    while (list != NULL && list[count] != NULL)
        count++;
    return count;
}

/* How much stack a completed environment needs: its pointers and one joined LD_PRELOAD. */
#define EXTRA 3

static size_t joined_size(char *const *list) {
    for (size_t at = 0; list != NULL && list[at] != NULL; at++)
        if (starts_with(list[at], "LD_PRELOAD="))
            return strlen(list[at]) + strlen(zt_environment.preload) + 2;
    return 1;
}

/* Fills `room` with `list` and what is missing in it; `joined` gets a combined LD_PRELOAD. */
static char *const *complete(char *const *list, char **room, char *joined) {
    bool has_preload = false, has_address = false;
    size_t count = 0;
    for (size_t at = 0; list != NULL && list[at] != NULL; at++) {
        room[count] = list[at];
        if (starts_with(list[at], "ZTTRIO_NET=")) {
            has_address = true;
        } else if (starts_with(list[at], "LD_PRELOAD=")) {
            has_preload = true;
            if (strstr(list[at], zt_environment.preload) == NULL) {
                stpcpy(stpcpy(stpcpy(stpcpy(joined, "LD_PRELOAD="), zt_environment.preload), ":"),
                       list[at] + strlen("LD_PRELOAD="));
                room[count] = joined;
            }
        }
        count++;
    }
    if (!has_preload)
        room[count++] = zt_environment.preload_entry;
    if (!has_address && zt_environment.address_entry[0] != '\0')
        room[count++] = zt_environment.address_entry;
    room[count] = NULL;
    return room;
}

/* Declares `completed`, on the stack: the caller may be a vfork child. */
#define COMPLETE(list)                                                                             \
    char **pointers = alloca((count_of(list) + EXTRA) * sizeof *pointers);                         \
    char *joined = alloca(joined_size(list));                                                      \
    char *const *completed = complete(list, pointers, joined)

/* ---- what kind of program is it? ---- */

static bool has_dynamic_loader(int fd, const ElfW(Ehdr) * head) {
    for (unsigned at = 0; at < head->e_phnum && at < 128; at++) {
        ElfW(Phdr) part;
        off_t where = (off_t)(head->e_phoff + (uint64_t)at * head->e_phentsize);
        if (pread(fd, &part, sizeof part, where) != (ssize_t)sizeof part)
            return false;
        if (part.p_type == PT_INTERP)
            return true;
    }
    return false;
}

static bool is_loader(const char *path) {
    const char *name = strrchr(path, '/');
    name = name != NULL ? name + 1 : path;
    return starts_with(name, "ld-linux") || starts_with(name, "ld.so") || starts_with(name, "ld64");
}

static int native_machine(void) {
#if defined __x86_64__
    return EM_X86_64;
#elif defined __aarch64__
    return EM_AARCH64;
#elif defined __riscv
    return EM_RISCV;
#elif defined __powerpc64__
    return EM_PPC64;
#elif defined __s390x__
    return EM_S390;
#elif defined __i386__
    return EM_386;
#elif defined __arm__
    return EM_ARM;
#else
    return EM_NONE;
#endif
}

/* Does the program gain rights, so that the loader ignores LD_PRELOAD? */
static bool gains_rights(int fd) {
    struct stat state;
    if (fstat(fd, &state) < 0)
        return false;
    if ((state.st_mode & S_ISUID && state.st_uid != getuid()) ||
        (state.st_mode & S_ISGID && state.st_mode & S_IXGRP && state.st_gid != getgid()))
        return true;
    char rights[64];
    return getuid() != 0 && fgetxattr(fd, "security.capability", rights, sizeof rights) > 0;
}

/* Why preloading would not act in this program; NULL if it would, or if exec will fail anyway. */
static const char *objection_to(int fd, const char *path, int depth) {
    union {
        ElfW(Ehdr) head;
        char text[256];
    } start;
    memset(&start, 0, sizeof start);
    ssize_t length = pread(fd, &start, sizeof start - 1, 0);
    if (length < 4)
        return NULL;
    if (starts_with(start.text, "#!") && depth < 4) {
        char *name = start.text + 2;
        name += strspn(name, " \t");
        name[strcspn(name, " \t\r\n")] = '\0';
        int interpreter = (int)real()->syscall(SYS_openat, (long)AT_FDCWD, name,
                                               (long)(O_RDONLY | O_CLOEXEC));
        if (interpreter < 0)
            return NULL;
        const char *objection = objection_to(interpreter, name, depth + 1);
        real()->close(interpreter);
        return objection;
    }
    if (memcmp(start.text, ELFMAG, SELFMAG) != 0 || length < (ssize_t)sizeof start.head)
        return NULL;
    if (start.head.e_machine != native_machine() ||
        start.head.e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32))
        return "made for another architecture";
    if (gains_rights(fd))
        return "gains rights (set-uid, set-gid or file capabilities)";
    if (!has_dynamic_loader(fd, &start.head) && !is_loader(path))
        return "statically linked";
    return NULL;
}

static bool may_run_descriptor(int fd, const char *path) {
    const char *objection = objection_to(fd, path, 0);
    if (objection == NULL)
        return true;
    char text[PATH_MAX + 128];
    bool is_strict = zt_is_strict();
    snprintf(text, sizeof text, "%s: %s: %s, preloading cannot act in it",
             is_strict ? "refused to run" : "runs on the host's network", path, objection);
    zt_note(text);
    return !is_strict;
}

static bool may_run(const char *path) {
    if (path == NULL)
        return true;
    int saved = errno;
    int fd = (int)real()->syscall(SYS_openat, (long)AT_FDCWD, path, (long)(O_RDONLY | O_CLOEXEC));
    bool result = fd < 0 || may_run_descriptor(fd, path);
    if (fd >= 0)
        real()->close(fd);
    errno = result ? saved : EPERM;
    return result;
}

/* As execvp finds it; only for the question above. */
static bool may_run_by_name(const char *name) {
    if (name == NULL || strchr(name, '/') != NULL)
        return may_run(name);
    const char *search = getenv("PATH");
    if (search == NULL)
        search = "/bin:/usr/bin";
    char path[PATH_MAX];
    size_t name_length = strlen(name);
    while (true) {
        size_t length = strcspn(search, ":");
        if (length + name_length + 2 < sizeof path) {
            memcpy(path, search, length);
            path[length] = '/';
            memcpy(path + length + (length > 0), name, name_length + 1);
            if (length == 0)
                memcpy(path, name, name_length + 1);
            int saved = errno;
            bool is_there = access(path, X_OK) == 0;
            errno = saved;
            if (is_there)
                return may_run(path);
        }
        if (search[length] == '\0')
            return true;
        search += length + 1;
    }
}

/* ---- exec ---- */

EXPORT(int, zt_execve, "execve",
       (const char *path, char *const *arguments, char *const *environment)) {
    if (!may_run(path))
        return -1;
    COMPLETE(environment);
    return real()->execve(path, arguments, completed);
}

EXPORT(int, zt_execv, "execv", (const char *path, char *const *arguments)) {
    return zt_execve(path, arguments, environ);
}

EXPORT(int, zt_execvpe, "execvpe",
       (const char *name, char *const *arguments, char *const *environment)) {
    if (!may_run_by_name(name))
        return -1;
    COMPLETE(environment);
    return real()->execvpe(name, arguments, completed);
}

EXPORT(int, zt_execvp, "execvp", (const char *name, char *const *arguments)) {
    return zt_execvpe(name, arguments, environ);
}

EXPORT(int, zt_fexecve, "fexecve",
       (int fd, char *const *arguments, char *const *environment)) {
    if (!may_run_descriptor(fd, "a descriptor")) {
        errno = EPERM;
        return -1;
    }
    COMPLETE(environment);
    return real()->fexecve(fd, arguments, completed);
}

EXPORT(int, zt_execveat, "execveat",
       (int folder, const char *path, char *const *arguments, char *const *environment,
        int flags)) {
    int saved = errno, fd = folder;
    bool is_opened = !(flags & AT_EMPTY_PATH && path != NULL && *path == '\0');
    if (is_opened)
        fd = (int)real()->syscall(SYS_openat, (long)folder, path, (long)(O_RDONLY | O_CLOEXEC));
    bool result = fd < 0 || may_run_descriptor(fd, path != NULL ? path : "");
    if (is_opened && fd >= 0)
        real()->close(fd);
    errno = saved;
    if (!result) {
        errno = EPERM;
        return -1;
    }
    COMPLETE(environment);
    return (int)real()->syscall(SYS_execveat, (long)folder, path, arguments, completed,
                                (long)flags);
}

/* The variadic family: their arguments become a list on the stack. */
#define COLLECT(first)                                                                             \
    va_list list;                                                                                  \
    size_t count = 1;                                                                              \
    va_start(list, first);                                                                         \
    while (va_arg(list, char *) != NULL)                                                           \
        count++;                                                                                   \
    va_end(list);                                                                                  \
    char **arguments = alloca((count + 1) * sizeof *arguments);                                    \
    va_start(list, first);                                                                         \
    arguments[0] = (char *)(uintptr_t)first;                                                       \
    for (size_t at = 1; at <= count; at++)                                                         \
        arguments[at] = va_arg(list, char *)

EXPORT(int, zt_execl, "execl", (const char *path, const char *first, ...)) {
    if (first == NULL)
        return zt_execve(path, (char *[]){NULL}, environ);
    COLLECT(first);
    va_end(list);
    return zt_execve(path, arguments, environ);
}

EXPORT(int, zt_execlp, "execlp", (const char *name, const char *first, ...)) {
    if (first == NULL)
        return zt_execvpe(name, (char *[]){NULL}, environ);
    COLLECT(first);
    va_end(list);
    return zt_execvpe(name, arguments, environ);
}

EXPORT(int, zt_execle, "execle", (const char *path, const char *first, ...)) {
    COLLECT(first);
    char *const *environment = va_arg(list, char *const *);
    va_end(list);
    return zt_execve(path, arguments, environment);
}

EXPORT(int, zt_posix_spawn, "posix_spawn",
       (pid_t * pid, const char *path, const void *actions, const void *attributes,
        char *const *arguments, char *const *environment)) {
    if (!may_run(path))
        return EPERM;
    COMPLETE(environment);
    return real()->posix_spawn(pid, path, actions, attributes, arguments, completed);
}

EXPORT(int, zt_posix_spawnp, "posix_spawnp",
       (pid_t * pid, const char *name, const void *actions, const void *attributes,
        char *const *arguments, char *const *environment)) {
    if (!may_run_by_name(name))
        return EPERM;
    COMPLETE(environment);
    return real()->posix_spawnp(pid, name, actions, attributes, arguments, completed);
}

/* system() and popen() start their shell with `environ`, past every wrapper. */
static void complete_own_environment(void) {
    int saved = errno;
    const char *preload = getenv("LD_PRELOAD");
    if (preload == NULL || strstr(preload, zt_environment.preload) == NULL)
        setenv("LD_PRELOAD", zt_environment.preload_entry + strlen("LD_PRELOAD="), 1);
    if (getenv("ZTTRIO_NET") == NULL && zt_environment.address[0] != '\0')
        setenv("ZTTRIO_NET", zt_environment.address, 1);
    errno = saved;
}

EXPORT(int, zt_system, "system", (const char *command)) {
    struct real *next = real();
    if (command != NULL)
        complete_own_environment();
    return next->system(command);
}

EXPORT(FILE *, zt_popen, "popen", (const char *command, const char *mode)) {
    struct real *next = real();
    complete_own_environment();
    return next->popen(command, mode);
}
