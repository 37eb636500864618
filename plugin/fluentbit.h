/*
 * The binary interface between Fluent Bit and a Go output plugin: only what this plugin touches, as of Fluent Bit 5.1.
 * Releases append to these structures. Fluent Bit's own declarations are in flb_plugin_proxy.h, flb_api.h, flb_macros.h,
 * flb_log.h and proxy/go/go.h.
 */
#ifndef AUDITCHAIN_FLUENTBIT_H
#define AUDITCHAIN_FLUENTBIT_H

#include <stddef.h>
#include <stdint.h>

/* What FLBPluginInit and FLBPluginFlushCtx return. A flush that returns FLB_ERROR, or any other number, throws the
   chunk away. */
enum { FLB_ERROR = 0, FLB_OK = 1, FLB_RETRY = 2 };

/* What a plugin is, for FLBPluginRegister. */
enum { FLB_PROXY_OUTPUT_PLUGIN = 2, FLB_PROXY_GOLANG = 11 };

/* Levels of log_print and output_log_check. */
enum { FLB_LOG_ERROR = 1, FLB_LOG_WARN = 2, FLB_LOG_INFO = 3, FLB_LOG_DEBUG = 4 };

/* Filled in by FLBPluginRegister. It comes zeroed; later releases append members, which are left alone. */
struct flb_plugin_proxy_def {
    int type;
    int proxy;
    int flags;
    char *name;        /* freed by FLBPluginUnregister, */
    char *description; /* and so is this */
};

/* One per instance, made by Fluent Bit. */
struct flb_plugin_proxy_context {
    uintptr_t remote_context; /* ours: a void * that comes back in FLBPluginFlushCtx and FLBPluginExitCtx */
    void *proxy;
};

/* The functions that Fluent Bit lends. Members after these, and those for inputs, are not used. */
struct flb_api {
    const char *(*output_get_property)(const char *key, void *instance);
    const char *(*input_get_property)(const char *key, void *instance);
    void *(*output_get_cmt_instance)(void *instance);
    void *(*input_get_cmt_instance)(void *instance);
    void (*log_print)(int level, const char *file, int line, const char *format, ...);
    int (*input_log_check)(void *instance, int level);
    int (*output_log_check)(void *instance, int level);
};

/* The argument of FLBPluginInit. There is one per shared object: it is overwritten for the next instance. */
struct flbgo_output_plugin {
    char *name;
    struct flb_api *api;
    void *o_ins; /* the instance, for the functions above */
    struct flb_plugin_proxy_context *context;
    /* pointers to the plugin's own functions follow */
};

#endif
