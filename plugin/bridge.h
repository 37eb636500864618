/* Calls into Fluent Bit that Go cannot make itself: through function pointers, and to symbols that may be missing. */
#ifndef AUDITCHAIN_BRIDGE_H
#define AUDITCHAIN_BRIDGE_H

#include "fluentbit.h"

/* One instance, as Fluent Bit sees it. Valid from FLBPluginInit to the return of FLBPluginExitCtx. */
struct host {
    struct flb_api *api;
    void *instance;
    void *worker; /* see host_print */
};

/* host_open takes from the argument of FLBPluginInit what is needed later. To be called on Fluent Bit's own thread. */
struct host host_open(const struct flbgo_output_plugin *plugin);

/* host_property returns the value of a key in the instance's section, or NULL. */
const char *host_property(const struct host *h, const char *key);

/* host_name returns the instance's alias or name, or NULL if Fluent Bit does not say. */
const char *host_name(const struct host *h);

/* host_can_print says whether there is a function for logging. */
int host_can_print(const struct host *h);

/* host_enabled says whether the instance logs messages of the level. */
int host_enabled(const struct host *h, int level);

/* host_print logs one line. Any thread may call it. */
void host_print(const struct host *h, int level, const char *line);

/* Metrics of one instance. */
struct metrics;

/* metrics_open returns NULL if Fluent Bit has no metrics or does not let its functions for them be found. The label
   is the value of `name` on all of them. */
struct metrics *metrics_open(const struct host *h, const char *label);

/* metrics_add adds a counter (or a gauge) fluentbit_auditchain_<name>. It returns its index, or -1. Not safe once
   Fluent Bit runs: only within FLBPluginInit. */
int metrics_add(struct metrics *m, int gauge, const char *name, const char *help);

/* metrics_set sets a metric, as of now (nanoseconds of Unix time). */
void metrics_set(struct metrics *m, int index, uint64_t now, double value);

/* metrics_close frees m. The metrics themselves are Fluent Bit's. */
void metrics_close(struct metrics *m);

#endif
