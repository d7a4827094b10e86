#pragma once
#include "trainerd/metrics_log.h"
#include "trainerd/progress.h"
#include "trainerd/rendezvous.h"

/**
 * What the first rank tells the supervisor: plain structs as the bytes of a rendezvous report, since both
 * sides are one program on one machine. Sizes and text are checked on arrival all the same.
 */
#define REPORT_STEP  "step"  /**< struct progress_step */
#define REPORT_EVENT "event" /**< struct report_event */
#define REPORT_MODEL "model" /**< struct report_model: a model file to publish */

enum { REPORT_NAME_SIZE = 40, REPORT_TEXT_SIZE = 160, REPORT_MAX_METRICS = 24, REPORT_PATH_SIZE = 4096 };

struct report_metric {
    char name[REPORT_NAME_SIZE], text[REPORT_TEXT_SIZE];
    enum metric_kind kind;
    double real;
    int64_t integer;
};

/** An event with its figures, for progress_event. */
struct report_event {
    char event[REPORT_NAME_SIZE];
    int count;
    struct report_metric metrics[REPORT_MAX_METRICS];
};

struct report_model {
    char path[REPORT_PATH_SIZE];
    char name[REPORT_NAME_SIZE * 3], version[REPORT_NAME_SIZE * 3];
};

bool reports_send_step(struct rendezvous *rendezvous, const struct progress_step *step, struct error *err);
/** More than REPORT_MAX_METRICS figures are cut. */
bool reports_send_event(struct rendezvous *rendezvous, const char *event, const struct metric *metrics,
                        int count, struct error *err);
bool reports_send_model(struct rendezvous *rendezvous, const char *path, const char *name,
                        const char *version, struct error *err);

/** The supervisor's side: each checks the bytes; ERROR_FORMAT. Metrics point into *event. */
bool reports_read_step(const void *data, size_t size, struct progress_step *out, struct error *err);
bool reports_read_event(const void *data, size_t size, struct report_event *event,
                        struct metric metrics[REPORT_MAX_METRICS], struct error *err);
bool reports_read_model(const void *data, size_t size, struct report_model *out, struct error *err);
