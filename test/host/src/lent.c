/* The functions that Fluent Bit lends to plugins through a table. */
#define _GNU_SOURCE
#include "host.h"

#include <stdarg.h>
#include <string.h>
#include <time.h>

int log_level = 3;

static const char *output_get_property(const char *key, void *instance)
{
    struct instance *i = instance;

    for (int n = i->count - 1; n >= 0; n--) {
        if (!strcasecmp(i->keys[n], key)) {
            return i->values[n];
        }
    }
    return NULL;
}

static void *output_get_cmt_instance(void *instance)
{
    return symbols_metrics ? symbols_metrics(instance) : instance;
}

static void log_print(int level, const char *file, int line, const char *format, ...)
{
    static const char *names[] = {"", "error", "warn", "info", "debug"};
    char text[4096], when[32];
    struct timespec now;
    struct tm tm;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(when, sizeof when, "%Y/%m/%d %H:%M:%S", localtime_r(&now.tv_sec, &tm));
    fprintf(stderr, "[%s.%03ld] [%5s] %s\n", when, now.tv_nsec / 1000000, names[level], text);
}

static int output_log_check(void *instance, int level)
{
    return level <= log_level;
}

struct lent lent = {.output_get_property = output_get_property, .output_get_cmt_instance = output_get_cmt_instance,
                    .log_print = log_print, .output_log_check = output_log_check};
