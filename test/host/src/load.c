/*
 * A steady load: chunks at a rate, whether the plugin keeps up or not, each record with a number of its own. A chunk
 * that is late is delivered at once, as Fluent Bit does with what has piled up in its buffers.
 */
#define _GNU_SOURCE
#include "host.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What comes before a record's number: the key "seq", and msgpack's mark of a 64-bit integer. */
static const char mark[] = "\xa3seq\xcf";

enum { MARK = sizeof mark - 1, NUMBER = 8, MAX_FILES = 64 };

struct content {
    const char *file;
    char *data;
    size_t size, count, *numbers; /* where the numbers are */
};

static struct {
    struct task task; /* all but the data and the file */
    struct content contents[MAX_FILES];
    int count;
    double rate, seconds;
    pthread_t thread;
    int started;
} load;

/* Finds the numbers of the records; false if there are none. */
static int find_numbers(struct content *c)
{
    const char *end = c->data + c->size, *at = c->data;

    while ((at = memmem(at, end - at, mark, MARK)) && end - at >= MARK + NUMBER) {
        c->numbers = realloc(c->numbers, (c->count + 1) * sizeof *c->numbers);
        c->numbers[c->count++] = at + MARK - c->data;
        at += MARK + NUMBER;
    }
    return c->count > 0;
}

static void deliver(const struct content *c, uint64_t number)
{
    struct task *t = memcpy(malloc(sizeof *t), &load.task, sizeof *t);

    snprintf(t->file, sizeof t->file, "%s", c->file);
    t->data = memcpy(malloc(c->size), c->data, c->size);
    t->size = c->size;
    for (size_t i = 0; i < c->count; i++, number++) {
        for (int n = 0; n < NUMBER; n++) {
            t->data[c->numbers[i] + n] = (char) (number >> 8 * (NUMBER - 1 - n));
        }
    }
    pool_flush(t);
}

static void *run(void *unused)
{
    long long start = now_us(), end = start + (long long) (load.seconds * 1e6);
    uint64_t records = 0;

    for (int n = 0; now_us() < end; n = (n + 1) % load.count) {
        long long due = start + (long long) (records / load.rate * 1e6);
        struct timespec at = {.tv_sec = due / 1000000, .tv_nsec = due % 1000000 * 1000};
        if (due >= end) {
            break;
        }
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL)) {
        }
        deliver(&load.contents[n], records);
        records += load.contents[n].count;
    }
    FILE *out = result_begin();
    fputs("{\"op\":\"load\",\"instance\":", out);
    json_string(out, load.task.instance);
    fprintf(out, ",\"records\":%llu,\"us\":%lld}\n", (unsigned long long) records, now_us() - start);
    result_end();
    return unused;
}

const char *load_start(const struct task *t, double rate, double seconds, char *files)
{
    char *file;

    load.task = *t;
    load.rate = rate;
    load.seconds = seconds;
    load.count = 0;
    while ((file = strsep(&files, " ")) && *file) {
        struct content *c = &load.contents[load.count++];
        if (load.count == MAX_FILES) {
            return "too many files";
        }
        memset(c, 0, sizeof *c);
        c->file = strdup(file);
        c->data = read_file(file, &c->size);
        if (!find_numbers(c)) {
            return "a file whose records have no number";
        }
    }
    if (load.count == 0 || rate <= 0 || pthread_create(&load.thread, NULL, run, NULL)) {
        return "no file, no rate, or no thread";
    }
    load.started = 1;
    return NULL;
}

int load_running(void)
{
    return load.started;
}

void load_wait(void)
{
    if (!load.started) {
        return;
    }
    pthread_join(load.thread, NULL);
    load.started = 0;
    for (int n = 0; n < load.count; n++) {
        free((char *) load.contents[n].file);
        free(load.contents[n].data);
        free(load.contents[n].numbers);
    }
}
