/*
 * Lets system calls on chosen files fail. Preloaded (LD_PRELOAD) into a child process of a test; the test compiles it.
 *
 *   HOSTFAULT_PATH   a part of the path of the files concerned, as /proc/self/fd shows it
 *   HOSTFAULT_CALLS  comma-separated: fsync, pwrite, ftruncate, fallocate (fsync stands for fdatasync too)
 *   HOSTFAULT_ERRNO  the error number
 *   HOSTFAULT_SKIP   calls that pass before the first one fails (default 0)
 *   HOSTFAULT_COUNT  calls that fail; later ones pass again (default: all)
 *   HOSTFAULT_LIMIT  only calls that reach past this offset count: a file that cannot grow, on a disk that is full
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long seen;

static long number_of(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? atol(text) : otherwise;
}

static int is_named(const char *call)
{
    const char *calls = getenv("HOSTFAULT_CALLS");
    size_t length = strlen(call);
    for (const char *at = calls; at != NULL && (at = strstr(at, call)) != NULL; at += length) {
        if ((at == calls || at[-1] == ',') && (at[length] == ',' || at[length] == '\0')) {
            return 1;
        }
    }
    return 0;
}

/* Not 0, with errno set, if this call, which reaches up to an offset, is to fail. */
static int fails(const char *call, int descriptor, long end)
{
    const char *part = getenv("HOSTFAULT_PATH");
    char link[64], path[4096];
    if (part == NULL || !is_named(call) || end <= number_of("HOSTFAULT_LIMIT", -1)) {
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) {
        return 0;
    }
    path[length] = '\0';
    if (strstr(path, part) == NULL) {
        return 0;
    }
    long number = atomic_fetch_add(&seen, 1), skip = number_of("HOSTFAULT_SKIP", 0), count = number_of("HOSTFAULT_COUNT", -1);
    if (number < skip || (count >= 0 && number - skip >= count)) {
        return 0;
    }
    errno = (int)number_of("HOSTFAULT_ERRNO", EIO);
    return 1;
}

#define REPLACE(result, name, as, end, parameters, arguments)              \
    result name parameters                                                  \
    {                                                                       \
        static result (*next) parameters;                                   \
        if (fails(as, descriptor, end)) {                                   \
            return -1;                                                      \
        }                                                                   \
        if (next == NULL) {                                                 \
            next = (result (*) parameters)dlsym(RTLD_NEXT, #name);          \
        }                                                                   \
        return next arguments;                                              \
    }

REPLACE(int, fsync, "fsync", 0, (int descriptor), (descriptor))
REPLACE(int, fdatasync, "fsync", 0, (int descriptor), (descriptor))
REPLACE(int, ftruncate, "ftruncate", (long)length, (int descriptor, off_t length), (descriptor, length))
REPLACE(int, ftruncate64, "ftruncate", (long)length, (int descriptor, off_t length), (descriptor, length))
REPLACE(int, fallocate, "fallocate", (long)(offset + length), (int descriptor, int mode, off_t offset, off_t length), (descriptor, mode, offset, length))
REPLACE(int, fallocate64, "fallocate", (long)(offset + length), (int descriptor, int mode, off_t offset, off_t length), (descriptor, mode, offset, length))
REPLACE(ssize_t, pwrite, "pwrite", (long)(offset + (off_t)count), (int descriptor, const void *bytes, size_t count, off_t offset), (descriptor, bytes, count, offset))
REPLACE(ssize_t, pwrite64, "pwrite", (long)(offset + (off_t)count), (int descriptor, const void *bytes, size_t count, off_t offset), (descriptor, bytes, count, offset))
