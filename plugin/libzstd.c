#define _GNU_SOURCE
#include "libzstd.h"

#include <dlfcn.h>
#include <stdlib.h>

/* Of zstd's stable interface (zstd.h), as far as it is needed. */
enum { ZSTD_c_compressionLevel = 100, ZSTD_c_windowLog = 101, ZSTD_c_checksumFlag = 201 };

struct libzstd {
    void *context;
    size_t (*set)(void *context, int parameter, int value);
    size_t (*compress)(void *context, void *dst, size_t capacity, const void *src, size_t size);
    size_t (*bound)(size_t size);
    unsigned (*is_error)(size_t code);
    size_t (*free)(void *context);
};

struct libzstd *libzstd_open(int level, int window_log)
{
    void *(*create)(void) = dlsym(RTLD_DEFAULT, "ZSTD_createCCtx");
    struct libzstd *z = calloc(1, sizeof *z);

    if (z == NULL) {
        return NULL;
    }
    z->set = dlsym(RTLD_DEFAULT, "ZSTD_CCtx_setParameter");
    z->compress = dlsym(RTLD_DEFAULT, "ZSTD_compress2");
    z->bound = dlsym(RTLD_DEFAULT, "ZSTD_compressBound");
    z->is_error = dlsym(RTLD_DEFAULT, "ZSTD_isError");
    z->free = dlsym(RTLD_DEFAULT, "ZSTD_freeCCtx");
    if (create == NULL || z->set == NULL || z->compress == NULL || z->bound == NULL || z->is_error == NULL ||
        z->free == NULL || (z->context = create()) == NULL) {
        free(z);
        return NULL;
    }
    if (z->is_error(z->set(z->context, ZSTD_c_compressionLevel, level)) ||
        z->is_error(z->set(z->context, ZSTD_c_windowLog, window_log)) ||
        z->is_error(z->set(z->context, ZSTD_c_checksumFlag, 1))) {
        libzstd_close(z);
        return NULL;
    }
    return z;
}

size_t libzstd_bound(const struct libzstd *z, size_t size) { return z->bound(size); }

size_t libzstd_frame(const struct libzstd *z, void *dst, size_t capacity, const void *src, size_t size)
{
    size_t n = z->compress(z->context, dst, capacity, src, size);

    return z->is_error(n) ? 0 : n;
}

void libzstd_close(struct libzstd *z)
{
    z->free(z->context);
    free(z);
}
