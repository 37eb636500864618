/*
 * witness.so is loaded by Fluent Bit, or the plugin host, in the plugin's place. It loads the plugin and passes every call on to
 * it, and it keeps a copy of each chunk that the plugin has taken. The copy is written after the plugin has said FLB_OK and
 * before whoever loaded this hears of it: what the witness has, the plugin has acknowledged.
 *
 *     AUDITCHAIN_WITNESS_PLUGIN   path of the plugin
 *     AUDITCHAIN_WITNESS          path of the file that copies are appended to
 *
 * Each flush is one frame, written with one call, so that frames of several threads do not mix and a kill cuts the
 * last one of a thread at most:
 *
 *     "{witness"                   8 bytes
 *     what the flush returned      4 bytes, as this machine orders them; so are the next two
 *     length of the tag            4
 *     length of the chunk          8, 0 unless the flush returned FLB_OK
 *     the tag, the chunk
 *     "witness}"                   8
 *
 * A witness that cannot write ends the process: without it a test would see less than there is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum { FLB_OK = 1 };

static void *plugin;
static int file = -1;
static int (*flush)(void *, const void *, size_t, const char *);

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "witness: %s: %s\n", what, why);
    return -1;
}

/* begin loads the plugin and opens the file, once. */
static int begin(void)
{
    const char *path = getenv("AUDITCHAIN_WITNESS_PLUGIN"), *copies = getenv("AUDITCHAIN_WITNESS");

    if (flush) {
        return 0;
    }
    if (!path || !copies) {
        return fail("AUDITCHAIN_WITNESS_PLUGIN and AUDITCHAIN_WITNESS", "not set");
    }
    if ((file = open(copies, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0) {
        return fail(copies, strerror(errno));
    }
    if (!(plugin = dlopen(path, RTLD_NOW))) { /* never closed: Go does not leave a process */
        return fail("loading the plugin", dlerror());
    }
    if (!(flush = dlsym(plugin, "FLBPluginFlushCtx"))) {
        return fail("loading the plugin", dlerror());
    }
    return 0;
}

static void write_frame(int ret, const char *tag, const void *data, size_t size)
{
    struct {
        char mark[8];
        uint32_t ret, tag;
        uint64_t size;
    } head = {"{witness", ret, strlen(tag), ret == FLB_OK ? size : 0};
    struct iovec frame[] = {
        {&head, sizeof head}, {(void *) tag, head.tag}, {(void *) data, head.size}, {"witness}", 8},
    };
    size_t length = sizeof head + head.tag + head.size + 8;
    ssize_t n;

    do {
        n = writev(file, frame, 4);
    } while (n < 0 && errno == EINTR);
    if (n != (ssize_t) length) {
        fail("writing", n < 0 ? strerror(errno) : "cut short");
        abort();
    }
}

int FLBPluginRegister(void *def)
{
    int (*f)(void *);

    if (begin() || !(f = dlsym(plugin, "FLBPluginRegister"))) {
        return -1;
    }
    return f(def);
}

void FLBPluginUnregister(void *def)
{
    void (*f)(void *) = dlsym(plugin, "FLBPluginUnregister");

    if (f) {
        f(def);
    }
}

int FLBPluginInit(void *output)
{
    int (*f)(void *) = dlsym(plugin, "FLBPluginInit");

    return f ? f(output) : 0;
}

int FLBPluginFlushCtx(void *context, const void *data, size_t size, const char *tag)
{
    int ret = flush(context, data, size, tag);

    write_frame(ret, tag, data, size);
    return ret;
}

void FLBPluginOutputPreExit(int hot_reload)
{
    void (*f)(int) = dlsym(plugin, "FLBPluginOutputPreExit");

    if (f) {
        f(hot_reload);
    }
}

int FLBPluginExitCtx(void *context)
{
    int (*f)(void *) = dlsym(plugin, "FLBPluginExitCtx");

    return f ? f(context) : FLB_OK;
}
