/* What flushes run on: the caller, or threads; on their own stacks, or on small ones as Fluent Bit's coroutines have. */
#define _GNU_SOURCE
#include "host.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

struct pool pool = {.backoff_ms = 50};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, output = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER, idle = PTHREAD_COND_INITIALIZER;
static struct task *first, **last = &first;
static int threads; /* wanted */
static int open;    /* tasks that are queued or running */
static int queued;

long long now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

const char *ret_name(int ret)
{
    return ret == FLB_OK ? "OK" : ret == FLB_RETRY ? "RETRY" : "ERROR";
}

FILE *result_begin(void)
{
    pthread_mutex_lock(&output);
    return stdout;
}

void result_end(void)
{
    fflush(stdout);
    pthread_mutex_unlock(&output);
}

/* A coroutine: makecontext passes no pointers, so what it works on is thread-local. */
static __thread struct {
    ucontext_t caller, callee;
    char *stack;
    size_t size;
    struct task *task;
    char *data, *tag;
    int ret;
} co;

static void on_coroutine(void)
{
    co.ret = pool.flush(co.task->remote_context, co.data, co.task->size, co.tag);
}

static int flush_once(struct task *t, char *data, char *tag)
{
    if (!pool.stack) {
        return pool.flush(t->remote_context, data, t->size, tag);
    }
    if (co.size != pool.stack) {
        /* The page below the stack is never mapped: whoever overruns it crashes here, not later elsewhere. */
        size_t page = sysconf(_SC_PAGESIZE);
        co.stack = mmap(NULL, pool.stack + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (co.stack == MAP_FAILED || mprotect(co.stack, page, PROT_NONE)) {
            abort();
        }
        co.stack += page;
        co.size = pool.stack;
    }
    co.task = t;
    co.data = data;
    co.tag = tag;
    getcontext(&co.callee);
    co.callee.uc_stack.ss_sp = co.stack;
    co.callee.uc_stack.ss_size = co.size;
    co.callee.uc_link = &co.caller;
    makecontext(&co.callee, on_coroutine, 0);
    swapcontext(&co.caller, &co.callee);
    return co.ret;
}

/* memset, that the compiler does not leave out before free. */
static void *(*volatile scribble)(void *, int, size_t) = memset;

static void run(struct task *t)
{
    long long start = now_us(), backoff = pool.backoff_ms;
    int ret, tries = 0;

    for (;;) {
        /* The plugin may use data and tag only until it returns: after that there is something else in their place. */
        size_t tag_size = strlen(t->tag) + 1;
        char *tag = memcpy(malloc(tag_size), t->tag, tag_size);
        char *data = memcpy(malloc(t->size ? t->size : 1), t->data, t->size);
        ret = flush_once(t, data, tag);
        scribble(data, 0xc1, t->size);
        scribble(tag, '#', tag_size);
        free(data);
        free(tag);
        if (ret != FLB_RETRY || tries++ == pool.retries) {
            break;
        }
        usleep(backoff * 1000);
        backoff = backoff < 1000 ? backoff * 2 : backoff;
    }
    FILE *out = result_begin();
    fputs("{\"op\":\"flush\",\"instance\":", out);
    json_string(out, t->instance);
    fputs(",\"tag\":", out);
    json_string(out, t->tag);
    fputs(",\"file\":", out);
    json_string(out, t->file);
    fprintf(out, ",\"ret\":\"%s\",\"tries\":%d,\"us\":%lld}\n", ret_name(ret), ret == FLB_RETRY ? tries : tries + 1,
            now_us() - start);
    result_end();
    free(t->data);
    free(t);
}

static void *thread(void *number)
{
    pthread_mutex_lock(&lock);
    while ((long) number < threads) {
        struct task *t = first;
        if (!t) {
            pthread_cond_wait(&work, &lock);
            continue;
        }
        if (!(first = t->next)) {
            last = &first;
        }
        queued--;
        pthread_mutex_unlock(&lock);
        run(t);
        pthread_mutex_lock(&lock);
        open--;
        pthread_cond_broadcast(&idle);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* To be called when no flush is under way. */
void pool_threads(int n)
{
    static pthread_t ids[MAX_THREADS];
    int had = threads;

    n = n < 0 ? 0 : n > MAX_THREADS ? MAX_THREADS : n;
    pthread_mutex_lock(&lock);
    threads = n;
    pthread_cond_broadcast(&work);
    pthread_mutex_unlock(&lock);
    for (int i = n; i < had; i++) {
        pthread_join(ids[i], NULL);
    }
    for (long i = had; i < n; i++) {
        if (pthread_create(&ids[i], NULL, thread, (void *) i)) {
            abort();
        }
    }
}

void pool_flush(struct task *t)
{
    if (threads == 0) {
        run(t);
        return;
    }
    pthread_mutex_lock(&lock);
    while (queued > 2 * threads) { /* keeps memory flat */
        pthread_cond_wait(&idle, &lock);
    }
    t->next = NULL;
    *last = t;
    last = &t->next;
    open++;
    queued++;
    pthread_cond_signal(&work);
    pthread_mutex_unlock(&lock);
}

void pool_wait(void)
{
    pthread_mutex_lock(&lock);
    while (open > 0) {
        pthread_cond_wait(&idle, &lock);
    }
    pthread_mutex_unlock(&lock);
}
