/* The zstd library that Fluent Bit itself carries, found by name in its process. */
#ifndef AUDITCHAIN_LIBZSTD_H
#define AUDITCHAIN_LIBZSTD_H

#include <stddef.h>

struct libzstd;

/* libzstd_open returns NULL if the process has no zstd library whose functions can be found. */
struct libzstd *libzstd_open(int level, int window_log);

/* libzstd_bound is the most bytes that a frame of size bytes takes. */
size_t libzstd_bound(const struct libzstd *z, size_t size);

/* libzstd_frame writes one frame with a content checksum and returns its size, or 0 if it failed. */
size_t libzstd_frame(const struct libzstd *z, void *dst, size_t capacity, const void *src, size_t size);

void libzstd_close(struct libzstd *z);

#endif
