#include "trainerd/reports.h"

#include "common/base/text.h"

#include <string.h>

bool reports_send_step(struct rendezvous *rendezvous, const struct progress_step *step, struct error *err) {
    return rendezvous_report(rendezvous, REPORT_STEP, step, sizeof *step, err);
}

bool reports_send_event(struct rendezvous *rendezvous, const char *event, const struct metric *metrics,
                        int count, struct error *err) {
    struct report_event report;
    memset(&report, 0, sizeof report); /* padding travels too */
    text_copy(report.event, sizeof report.event, event);
    report.count = count < REPORT_MAX_METRICS ? count : REPORT_MAX_METRICS;
    for (int i = 0; i < report.count; i++) {
        struct report_metric *to = &report.metrics[i];
        text_copy(to->name, sizeof to->name, metrics[i].name);
        text_copy(to->text, sizeof to->text, metrics[i].text ? metrics[i].text : "");
        to->kind = metrics[i].kind;
        to->real = metrics[i].real;
        to->integer = metrics[i].integer;
    }
    return rendezvous_report(rendezvous, REPORT_EVENT, &report, sizeof report, err);
}

bool reports_send_model(struct rendezvous *rendezvous, const char *path, const char *name,
                        const char *version, struct error *err) {
    struct report_model report;
    memset(&report, 0, sizeof report);
    if (!text_copy(report.path, sizeof report.path, path) || !text_copy(report.name, sizeof report.name, name) ||
        !text_copy(report.version, sizeof report.version, version))
        return error_set(err, ERROR_TOO_LARGE, "the model's path or name is too long");
    return rendezvous_report(rendezvous, REPORT_MODEL, &report, sizeof report, err);
}

/** Copies a report of exactly that size. */
static bool read_exact(const char *kind, const void *data, size_t size, void *out, size_t expected, struct error *err) {
    if (size != expected)
        return error_set(err, ERROR_FORMAT, "a worker's %s report has %zu bytes instead of %zu", kind, size, expected);
    memcpy(out, data, size);
    return true;
}

static bool ends(const char *text, size_t size) {
    return memchr(text, '\0', size) != NULL;
}

bool reports_read_step(const void *data, size_t size, struct progress_step *out, struct error *err) {
    return read_exact(REPORT_STEP, data, size, out, sizeof *out, err);
}

bool reports_read_event(const void *data, size_t size, struct report_event *event,
                        struct metric metrics[REPORT_MAX_METRICS], struct error *err) {
    if (!read_exact(REPORT_EVENT, data, size, event, sizeof *event, err))
        return false;
    bool whole = ends(event->event, sizeof event->event) && event->count >= 0 && event->count <= REPORT_MAX_METRICS;
    for (int i = 0; whole && i < event->count; i++) {
        const struct report_metric *from = &event->metrics[i];
        whole = ends(from->name, sizeof from->name) && ends(from->text, sizeof from->text);
        metrics[i] = (struct metric){from->name, from->kind, from->real, from->integer, from->text};
    }
    return whole || error_set(err, ERROR_FORMAT, "a worker's event report is broken");
}

bool reports_read_model(const void *data, size_t size, struct report_model *out, struct error *err) {
    if (!read_exact(REPORT_MODEL, data, size, out, sizeof *out, err))
        return false;
    return (ends(out->path, sizeof out->path) && ends(out->name, sizeof out->name) && ends(out->version, sizeof out->version)) ||
           error_set(err, ERROR_FORMAT, "a worker's model report is broken");
}
