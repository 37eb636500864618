/*
 * Symbols of Fluent Bit that a plugin finds in the process with dlsym: cmetrics, and an instance's name. The metrics are
 * recorded to be printed. They are checked for what Fluent Bit demands: creation while the instance starts, counters that
 * never fall, one label, and no touch after the instance's end.
 */
#include "host.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_METRICS = 1024 };

struct metric {
    struct instance *owner; /* NULL once it has ended */
    int counter;
    char name[128], label[64];
    double value;
    int sets;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric all[MAX_METRICS];
static int count;

static void fail(const char *what, const char *name)
{
    fprintf(stderr, "plugin-host: metric %s: %s\n", name, what);
    abort();
}

void *symbols_metrics(struct instance *i)
{
    return i;
}

void symbols_forget(struct instance *i)
{
    pthread_mutex_lock(&lock);
    for (int n = 0; n < count; n++) {
        if (all[n].owner == i) {
            all[n].owner = NULL;
        }
    }
    pthread_mutex_unlock(&lock);
}

/* Prints "name{label}":value, of instances that have ended too; of two with the same name the later. */
void symbols_print(FILE *out)
{
    const char *comma = "";

    pthread_mutex_lock(&lock);
    for (int n = 0; n < count; n++) {
        int later = 0;
        for (int m = n + 1; m < count; m++) {
            later |= !strcmp(all[n].name, all[m].name) && !strcmp(all[n].label, all[m].label);
        }
        if (!later && all[n].sets > 0) {
            char key[256];
            snprintf(key, sizeof key, "%s{%s}", all[n].name, all[n].label);
            fputs(comma, out);
            json_string(out, key);
            fprintf(out, ":%.17g", all[n].value);
            comma = ",";
        }
    }
    pthread_mutex_unlock(&lock);
}

static void *create(void *cmt, const char *ns, const char *subsystem, const char *name, const char *help, int labels,
                    char **keys, int counter)
{
    struct metric *m = &all[count];

    if (!cmt || !*help || labels != 1 || strcmp(keys[0], "name") || count == MAX_METRICS) {
        fail("no instance, no help, no label name, or too many", name);
    }
    m->owner = cmt;
    m->counter = counter;
    snprintf(m->name, sizeof m->name, "%s_%s_%s", ns, subsystem, name);
    count++;
    return m;
}

static int put(struct metric *m, double value, int labels, char **values)
{
    pthread_mutex_lock(&lock);
    if (!m->owner) {
        fail("set after its instance has ended", m->name);
    }
    if (labels != 1 || (m->sets && strcmp(m->label, values[0])) || (m->counter && value < m->value)) {
        fail("another label, or a counter that falls", m->name);
    }
    snprintf(m->label, sizeof m->label, "%s", values[0]);
    m->value = value;
    m->sets++;
    pthread_mutex_unlock(&lock);
    return 0;
}

void *cmt_counter_create(void *cmt, char *ns, char *subsystem, char *name, char *help, int labels, char **keys)
{
    return create(cmt, ns, subsystem, name, help, labels, keys, 1);
}

void *cmt_gauge_create(void *cmt, char *ns, char *subsystem, char *name, char *help, int labels, char **keys)
{
    return create(cmt, ns, subsystem, name, help, labels, keys, 0);
}

int cmt_counter_set(void *metric, uint64_t time, double value, int labels, char **values)
{
    return put(metric, value, labels, values);
}

int cmt_gauge_set(void *metric, uint64_t time, double value, int labels, char **values)
{
    return put(metric, value, labels, values);
}

const char *flb_output_name(struct instance *i)
{
    return i->name;
}
