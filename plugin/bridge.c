#define _GNU_SOURCE
#include "bridge.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/*
 * Fluent Bit's log_print writes to where the log goes (log_file, its own metrics of the log) only on a thread whose
 * thread-local flb_worker_ctx is set, and to stderr on all others, as those of Go are. So the worker of the thread that
 * calls FLBPluginInit is remembered, and lent to the other threads for the time of a call. It lives as long as the
 * instance, and its log takes lines from several threads.
 *
 * Where flb_worker_ctx is not found, or is not a thread-local variable but a pthread key, worker stays NULL and
 * log_print does what it does.
 */
static void **worker_slot(void)
{
    return dlsym(RTLD_DEFAULT, "flb_worker_ctx"); /* this thread's, if it is thread-local */
}

static void *worker_here(void)
{
    void *(*get)(void) = dlsym(RTLD_DEFAULT, "flb_worker_get");
    void **slot = worker_slot();
    void *worker = get ? get() : NULL;

    return slot && *slot == worker ? worker : NULL;
}

struct host host_open(const struct flbgo_output_plugin *plugin)
{
    struct host h = {plugin->api, plugin->o_ins, worker_here()};
    return h;
}

const char *host_property(const struct host *h, const char *key)
{
    return h->api && h->api->output_get_property ? h->api->output_get_property(key, h->instance) : NULL;
}

const char *host_name(const struct host *h)
{
    const char *(*name)(void *) = dlsym(RTLD_DEFAULT, "flb_output_name");
    return name && h->instance ? name(h->instance) : NULL;
}

int host_can_print(const struct host *h)
{
    return h->api && h->api->log_print;
}

int host_enabled(const struct host *h, int level)
{
    if (!h->api || !h->api->output_log_check) {
        return level <= FLB_LOG_INFO;
    }
    return h->api->output_log_check(h->instance, level);
}

void host_print(const struct host *h, int level, const char *line)
{
    void **slot = h->worker ? worker_slot() : NULL;
    int lend = slot && !*slot;

    if (lend) {
        *slot = h->worker;
    }
    h->api->log_print(level, NULL, 0, "%s", line);
    if (lend) {
        *slot = NULL;
    }
}

enum { MAX_METRICS = 32 };

struct metrics {
    void *instance;
    void *(*counter_create)(void *, char *, char *, char *, char *, int, char **);
    void *(*gauge_create)(void *, char *, char *, char *, char *, int, char **);
    int (*counter_set)(void *, uint64_t, double, int, char **);
    int (*gauge_set)(void *, uint64_t, double, int, char **);
    char *label;
    int count;
    struct {
        void *handle;
        int (*set)(void *, uint64_t, double, int, char **);
    } all[MAX_METRICS];
};

struct metrics *metrics_open(const struct host *h, const char *label)
{
    struct metrics *m;

    if (!h->api || !h->api->output_get_cmt_instance || !(m = calloc(1, sizeof *m))) {
        return NULL;
    }
    m->instance = h->api->output_get_cmt_instance(h->instance);
    m->counter_create = dlsym(RTLD_DEFAULT, "cmt_counter_create");
    m->gauge_create = dlsym(RTLD_DEFAULT, "cmt_gauge_create");
    m->counter_set = dlsym(RTLD_DEFAULT, "cmt_counter_set");
    m->gauge_set = dlsym(RTLD_DEFAULT, "cmt_gauge_set");
    m->label = strdup(label);
    if (!m->instance || !m->counter_create || !m->gauge_create || !m->counter_set || !m->gauge_set || !m->label) {
        metrics_close(m);
        return NULL;
    }
    return m;
}

int metrics_add(struct metrics *m, int gauge, const char *name, const char *help)
{
    char *labels[] = {"name"};
    void *handle;

    if (m->count == MAX_METRICS) {
        return -1;
    }
    handle = (gauge ? m->gauge_create : m->counter_create)(m->instance, "fluentbit", "auditchain", (char *) name,
                                                           (char *) help, 1, labels);
    if (!handle) {
        return -1;
    }
    m->all[m->count].handle = handle;
    m->all[m->count].set = gauge ? m->gauge_set : m->counter_set;
    return m->count++;
}

void metrics_set(struct metrics *m, int index, uint64_t now, double value)
{
    m->all[index].set(m->all[index].handle, now, value, 1, &m->label);
}

void metrics_close(struct metrics *m)
{
    if (m) {
        free(m->label);
        free(m);
    }
}
