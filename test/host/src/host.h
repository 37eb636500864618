/* The plugin host: its own view of the interface between Fluent Bit and a Go output plugin. */
#ifndef HOST_H
#define HOST_H

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>

enum { FLB_ERROR = 0, FLB_OK = 1, FLB_RETRY = 2 };
enum { MAX_INSTANCES = 16, MAX_PROPERTIES = 48, MAX_THREADS = 64 };

struct proxy_def {
    int type, proxy, flags;
    char *name, *description;
    int event_type;
    void *config_map;
};

struct context {
    void *remote_context;
    void *proxy;
};

/* What is behind the plugin's o_ins. */
struct instance {
    char name[64]; /* "" if the slot is free */
    struct context *context;
    int count;
    char *keys[MAX_PROPERTIES], *values[MAX_PROPERTIES];
};

/* lent.c */
struct lent {
    const char *(*output_get_property)(const char *, void *);
    void *input_get_property;
    void *(*output_get_cmt_instance)(void *);
    void *input_get_cmt_instance;
    void (*log_print)(int, const char *, int, const char *, ...);
    void *input_log_check;
    int (*output_log_check)(void *, int);
    void *custom_get_property, *custom_log_check;
};
extern struct lent lent;
extern int log_level; /* of all instances */

/* host.c */
void json_string(FILE *out, const char *s);
char *read_file(const char *file, size_t *size); /* all of it, to be freed; ends the process if it cannot */

/* pool.c: what flushes run on. */
struct task {
    struct task *next;
    void *remote_context;
    char instance[64], tag[256], file[1024];
    char *data;
    size_t size;
};
struct pool {
    int (*flush)(void *, const void *, size_t, char *);
    int retries, backoff_ms; /* how often, and how long after the first time, FLB_RETRY is obeyed */
    size_t stack;            /* bytes of the stack that a flush gets; 0: the thread's */
};
extern struct pool pool;
void pool_threads(int n); /* 0: flushes run within pool_flush */
void pool_flush(struct task *t);
void pool_wait(void);
FILE *result_begin(void); /* one line of output; holds the lock until result_end */
void result_end(void);
const char *ret_name(int ret);
long long now_us(void);

/* load.c: flushes at a steady rate. */
const char *load_start(const struct task *t, double rate, double seconds, char *files); /* NULL, or what is wrong */
int load_running(void); /* until load_wait */
void load_wait(void);

/* symbols.c, left out for a host without metrics: what a plugin looks for with dlsym. */
void symbols_print(FILE *out) __attribute__((weak));
void *symbols_metrics(struct instance *i) __attribute__((weak));
void symbols_forget(struct instance *i) __attribute__((weak));

#endif
