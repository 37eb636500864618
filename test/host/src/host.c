/*
 * plugin-host loads a Fluent Bit output plugin written in Go and calls it the way Fluent Bit's proxy does, driven by
 * lines on stdin. It exists because Fluent Bit cannot be told which chunk to deliver when, or to say at once what
 * became of it.
 *
 *     plugin-host [--no-log] [--no-context] [--log-level error|warn|info|debug] PLUGIN.so < script
 *
 *     set KEY VALUE                   a property of the instances that are made after it; VALUE is the rest of the line
 *     init NAME [KEY=VALUE ...]       makes an instance, with these and all properties
 *     flush NAME TAG FILE [TIMES]     delivers FILE, one chunk, TIMES times (1)
 *     load NAME TAG RATE SECONDS FILE ...
 *                                     delivers the FILEs, one chunk each, by turns, so that RATE records a second come, for
 *                                     SECONDS; each record's "seq", where it is a 64-bit integer, becomes the record's number
 *     threads N                       flushes run on N threads, all at once; 0 (the default): one after the other
 *     stack KIB                       flushes run on coroutines with stacks of so many KiB; 0 (the default): on the threads'
 *     retries N [MS]                  FLB_RETRY is obeyed N times (0), first after MS milliseconds (50), then after twice that...
 *     wait                            until all flushes have ended
 *     sleep MS
 *     metrics                         prints the metrics
 *     exit NAME [hot]                 ends an instance; hot: as a hot reload does
 *     reload                          ends all instances, unloads the plugin and loads it again
 *     kill                            kill -9 of this very process
 *
 * NAME "-" is an instance whose context is NULL, "@N" one whose context is the number N, be it anybody's or not. With
 * --no-context there is nowhere to put the context of a new one, which no plugin can cope with.
 *
 * All commands but flush, sleep and kill wait until the flushes before
 * them have ended, and loads; only metrics does not wait while there is a load. Each but set, threads, stack, retries and
 * sleep answers with one JSON object on a line of its own, at once; flush and load with one for each chunk, when it is done,
 * and load with one more at its end, with the number of records:
 *
 *     {"op":"flush","instance":"a","tag":"t","file":"x.msgpack","ret":"OK","tries":1,"us":815}
 *     {"op":"load","instance":"a","records":60000,"us":3000125}
 *
 * At the end of the script the instances that are left are ended. The exit status is 0, or 2 for a script or a plugin
 * that cannot be used.
 */
#define _GNU_SOURCE
#include "host.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *path;
static void *handle;
static struct proxy_def *def;
static struct instance instances[MAX_INSTANCES];
static struct instance defaults;
static int no_context;

static void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("plugin-host: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    _exit(2);
}

void json_string(FILE *out, const char *s)
{
    fputc('"', out);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') {
            fputc('\\', out);
        }
        if ((unsigned char) *s < 0x20) {
            fprintf(out, "\\u%04x", *s);
        } else {
            fputc(*s, out);
        }
    }
    fputc('"', out);
}

/* One for all instances, as in Fluent Bit. */
static struct {
    char *name;
    void *api, *o_ins;
    struct context *context;
    int (*cb_init)(void *);
    void *cb_flush;
    int (*cb_flush_ctx)(void *, const void *, size_t, char *);
    void *cb_exit;
    int (*cb_exit_ctx)(void *);
} plugin;

static void load(void)
{
    int (*reg)(struct proxy_def *);

    if (!(handle = dlopen(path, RTLD_LAZY))) {
        die("%s", dlerror());
    }
    def = calloc(1, sizeof *def);
    if (!(reg = dlsym(handle, "FLBPluginRegister")) || reg(def) == -1 || def->type != 2 || def->proxy != 11) {
        die("%s does not register as a Go output plugin", path);
    }
    plugin.name = strdup(def->name);
    plugin.cb_init = dlsym(handle, "FLBPluginInit");
    plugin.cb_flush_ctx = pool.flush = dlsym(handle, "FLBPluginFlushCtx");
    plugin.cb_exit_ctx = dlsym(handle, "FLBPluginExitCtx");
    if (!plugin.cb_init || !plugin.cb_flush_ctx || !plugin.cb_exit_ctx) {
        die("%s lacks FLBPluginInit, FLBPluginFlushCtx or FLBPluginExitCtx", path);
    }
    FILE *out = result_begin();
    fputs("{\"op\":\"register\",\"name\":", out);
    json_string(out, def->name);
    fputs(",\"description\":", out);
    json_string(out, def->description);
    fputs("}\n", out);
    result_end();
}

static void unload(void)
{
    void (*unregister)(struct proxy_def *) = dlsym(handle, "FLBPluginUnregister");

    if (unregister) {
        unregister(def);
    }
    free(plugin.name);
    free(def);
    dlclose(handle);
}

/* word takes the first word off the line, "" if there is none. */
static char *word(char **line)
{
    char *first = strsep(line, " ");

    *line = *line ? *line : first + strlen(first);
    return first;
}

static void set(struct instance *i, const char *key, const char *value)
{
    if (i->count == MAX_PROPERTIES) {
        die("more than %d properties", MAX_PROPERTIES);
    }
    i->keys[i->count] = strdup(key);
    i->values[i->count++] = strdup(value);
}

static void clear(struct instance *i)
{
    for (int n = 0; n < i->count; n++) {
        free(i->keys[n]);
        free(i->values[n]);
    }
    free(i->context);
    memset(i, 0, sizeof *i);
}

static struct instance *find(const char *name)
{
    for (int n = 0; n < MAX_INSTANCES; n++) {
        if (!strcmp(instances[n].name, name)) {
            return &instances[n];
        }
    }
    return NULL;
}

static void answer(const char *op, const char *instance, int ret, long long start)
{
    FILE *out = result_begin();

    fprintf(out, "{\"op\":\"%s\",\"instance\":", op);
    json_string(out, instance);
    fprintf(out, ",\"ret\":\"%s\",\"us\":%lld}\n", ret_name(ret), now_us() - start);
    result_end();
}

static void init(const char *name, char *properties)
{
    struct instance *i = find("");
    long long start = now_us();
    int ret;

    if (!*name || find(name) || !i) {
        die("init: no name, no room, or %s is there already", name);
    }
    snprintf(i->name, sizeof i->name, "%s", name);
    i->context = calloc(1, sizeof *i->context);
    for (int n = 0; n < defaults.count; n++) {
        set(i, defaults.keys[n], defaults.values[n]);
    }
    while (*properties) {
        char *value = word(&properties), *key = strsep(&value, "=");
        set(i, key, value ? value : "");
    }
    plugin.api = &lent;
    plugin.o_ins = i;
    plugin.context = no_context ? NULL : i->context;
    ret = plugin.cb_init(&plugin);
    plugin.o_ins = plugin.context = NULL;
    answer("init", name, ret, start);
    if (ret <= 0) {
        clear(i);
    }
}

/* context_of is the context of the instance of that name; there is none if it returns 0. */
static int context_of(const char *name, void **context)
{
    struct instance *i;

    if (!strcmp(name, "-") || *name == '@') {
        *context = *name == '@' ? (void *) strtoul(name + 1, NULL, 0) : NULL;
        return 1;
    }
    if (!*name || !(i = find(name))) {
        return 0;
    }
    *context = i->context->remote_context;
    return 1;
}

/* end ends an instance. i is NULL for a context that is none of the host's instances'. */
static void end(struct instance *i, const char *name, void *context, int hot)
{
    void (*pre_exit)(int) = dlsym(handle, "FLBPluginOutputPreExit");
    long long start = now_us();
    int ret;

    if (pre_exit) {
        pre_exit(hot);
    }
    ret = plugin.cb_exit_ctx(context);
    answer("exit", name, ret, start);
    if (i && symbols_forget) {
        symbols_forget(i);
    }
    if (i) {
        clear(i);
    }
}

static void end_all(int hot)
{
    for (int n = 0; n < MAX_INSTANCES; n++) {
        if (*instances[n].name) {
            end(&instances[n], instances[n].name, instances[n].context->remote_context, hot);
        }
    }
}

char *read_file(const char *file, size_t *size)
{
    FILE *f = fopen(file, "rb");
    char *data = NULL;
    long end = -1;

    if (f && !fseek(f, 0, SEEK_END) && (end = ftell(f)) >= 0 && !fseek(f, 0, SEEK_SET)) {
        data = malloc(end + 1);
        *size = fread(data, 1, end, f);
    }
    if (!data || *size != (size_t) end) {
        die("cannot read %s", file);
    }
    fclose(f);
    return data;
}

/* to is a task without a chunk, for the instance with that name. */
static struct task to(const char *name, const char *tag)
{
    struct task t = {0};

    if (!context_of(name, &t.remote_context)) {
        die("no instance %s", name);
    }
    snprintf(t.instance, sizeof t.instance, "%s", name);
    snprintf(t.tag, sizeof t.tag, "%s", tag);
    return t;
}

static void flush(const char *name, char *tag, char *file, int times)
{
    struct task prototype = to(name, tag);
    char *data;

    snprintf(prototype.file, sizeof prototype.file, "%s", file);
    data = read_file(file, &prototype.size);
    while (times-- > 0) {
        struct task *t = memcpy(malloc(sizeof *t), &prototype, sizeof *t);
        t->data = memcpy(malloc(t->size ? t->size : 1), data, t->size);
        pool_flush(t);
    }
    free(data);
}

static void load_command(char *line)
{
    char *name = word(&line), *tag = word(&line), *rate = word(&line), *seconds = word(&line);
    struct task prototype = to(name, tag);
    const char *wrong = load_start(&prototype, atof(rate), atof(seconds), line);

    if (wrong) {
        die("load: %s", wrong);
    }
}

static void command(char *line)
{
    char *op = word(&line), *number = line;

    if (!strcmp(op, "flush")) {
        char *name = word(&line), *tag = word(&line), *file = word(&line);
        flush(name, tag, file, *line ? atoi(line) : 1);
        return;
    } else if (!strcmp(op, "sleep")) {
        usleep(atoi(number) * 1000);
        return;
    } else if (!strcmp(op, "kill")) {
        raise(SIGKILL);
    }
    if (strcmp(op, "metrics") || !load_running()) {
        load_wait();
        pool_wait();
    }
    if (!strcmp(op, "set")) {
        char *key = word(&line);
        set(&defaults, key, line);
    } else if (!strcmp(op, "init")) {
        char *name = word(&line);
        init(name, line);
    } else if (!strcmp(op, "exit")) {
        char *name = word(&line);
        void *context;
        if (!context_of(name, &context)) {
            die("exit: no instance %s", name);
        }
        end(find(name), name, context, !strcmp(line, "hot"));
    } else if (!strcmp(op, "reload")) {
        end_all(1);
        unload();
        load();
    } else if (!strcmp(op, "load")) {
        load_command(line);
    } else if (!strcmp(op, "threads")) {
        pool_threads(atoi(number));
    } else if (!strcmp(op, "stack")) {
        pool.stack = (size_t) atoi(number) << 10;
    } else if (!strcmp(op, "retries")) {
        sscanf(number, "%d %d", &pool.retries, &pool.backoff_ms);
    } else if (!strcmp(op, "metrics")) {
        FILE *out = result_begin();
        fputs("{\"op\":\"metrics\",\"values\":{", out);
        if (symbols_print) {
            symbols_print(out);
        }
        fputs("}}\n", out);
        result_end();
    } else if (!strcmp(op, "wait")) {
        fputs("{\"op\":\"wait\"}\n", result_begin());
        result_end();
    } else {
        die("what is %s?", op);
    }
}

int main(int argc, char **argv)
{
    char *line = NULL;
    size_t room = 0;

    for (int n = 1; n < argc; n++) {
        if (!strcmp(argv[n], "--no-log")) {
            lent.log_print = NULL;
            lent.output_log_check = NULL;
        } else if (!strcmp(argv[n], "--no-context")) {
            no_context = 1;
        } else if (!strcmp(argv[n], "--log-level") && n + 1 < argc) {
            n++;
            log_level = *argv[n] == 'e' ? 1 : *argv[n] == 'w' ? 2 : *argv[n] == 'i' ? 3 : 4;
        } else if (path || *argv[n] == '-') {
            die("usage: plugin-host [--no-log] [--no-context] [--log-level LEVEL] PLUGIN.so < script");
        } else {
            path = argv[n];
        }
    }
    if (!path) {
        die("no plugin given");
    }
    load();
    while (getline(&line, &room, stdin) > 0) {
        line[strcspn(line, "\r\n")] = 0;
        if (*line && *line != '#') {
            command(line);
        }
    }
    load_wait();
    pool_wait();
    end_all(0);
    unload();
    return 0;
}
