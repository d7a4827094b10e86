#include "trainerd/progress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BAR_INTERVAL_MS = 100, JSON_INTERVAL_MS = 1000, LINES_INTERVAL_MS = 10000, LINE_MAX_CHARS = 512 };
static const double SPEED_MEMORY_MS = 30000; /* how far back the speed looks */

struct progress {
    FILE *out;
    enum progress_style style;
    int64_t shown_ms; /* when a step was shown last */
    bool drawn;       /* a bar stands on the current line */
    char bar[LINE_MAX_CHARS];
    bool started;
    struct progress_step last;
    double images_per_ms, steps_per_ms; /* moving averages, 0: not known yet */
};

struct progress *progress_create(FILE *out, enum progress_style style) {
    struct progress *progress = calloc(1, sizeof *progress);
    if (!progress)
        return NULL;
    progress->out = out;
    progress->style = style;
    if (style == PROGRESS_AUTO)
        progress->style = isatty(fileno(out)) ? PROGRESS_BAR : PROGRESS_LINES;
    return progress;
}

void progress_destroy(struct progress *progress) {
    if (!progress)
        return;
    if (progress->drawn)
        fputc('\n', progress->out);
    fflush(progress->out);
    free(progress);
}

static int width_of(FILE *out) {
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return 80;
    return size.ws_col < LINE_MAX_CHARS ? size.ws_col : LINE_MAX_CHARS - 1;
}

/** Moves the average towards a new rate by the share of its memory that the interval covers. */
static void average(double *value, double amount, double interval_ms) {
    double weight = *value == 0 ? 1 : interval_ms / (SPEED_MEMORY_MS + interval_ms);
    *value += weight * (amount / interval_ms - *value);
}

static void measure(struct progress *progress, const struct progress_step *step) {
    const struct progress_step *last = &progress->last;
    if (!progress->started || step->step < last->step || step->images < last->images) {
        progress->started = true;
        progress->images_per_ms = progress->steps_per_ms = 0;
    } else if (step->now_ms > last->now_ms) {
        double interval_ms = (double)(step->now_ms - last->now_ms);
        average(&progress->images_per_ms, (double)(step->images - last->images), interval_ms);
        average(&progress->steps_per_ms, (double)(step->step - last->step), interval_ms);
    } else {
        return; /* same millisecond: it counts with the next step */
    }
    progress->last = *step;
}

/** Seconds until the last step, negative where nobody can know. */
static double seconds_left(const struct progress *progress, const struct progress_step *step) {
    if (step->steps <= 0 || progress->steps_per_ms <= 0)
        return -1;
    return (double)(step->steps - step->step) / progress->steps_per_ms / 1000;
}

static void format_duration(double seconds, char *out, size_t size) {
    if (seconds < 0 || seconds > 99 * 3600.0) {
        snprintf(out, size, "-:--");
        return;
    }
    int whole = (int)(seconds + 0.5);
    if (whole >= 3600)
        snprintf(out, size, "%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
    else
        snprintf(out, size, "%d:%02d", whole / 60, whole % 60);
}

static void draw_bar(struct progress *progress, const struct progress_step *step) {
    char head[64], tail[128], left[32];
    double share = step->steps > 0 ? (double)step->step / (double)step->steps : 0;
    share = share > 1 ? 1 : share < 0 ? 0 : share;
    format_duration(seconds_left(progress, step), left, sizeof left);
    int used = snprintf(head, sizeof head, "epoch %d/%d ", step->epoch, step->epochs);
    used += snprintf(tail, sizeof tail, " %3d%%  %.1f images/s  loss %.4f  left %s", (int)(share * 100),
                     progress->images_per_ms * 1000, step->loss, left);
    int room = width_of(progress->out) - used - 3; /* the brackets, and the last column stays free */
    room = room < 0 ? 0 : room > 40 ? 40 : room;
    char cells[41];
    for (int i = 0; i < room; i++)
        cells[i] = i < (int)(share * room) ? '#' : '.';
    cells[room] = '\0';
    snprintf(progress->bar, sizeof progress->bar, room >= 5 ? "%s[%s]%s" : "%s%.0s%s", head, cells, tail);
    fprintf(progress->out, "\r\033[K%.*s", width_of(progress->out) - 1, progress->bar);
    progress->drawn = true;
}

/** `event key=value ...`, text with anything but plain characters in quotes. */
static void print_line(FILE *out, const char *event, const struct metric *metrics, int count) {
    fputs(event, out);
    for (int i = 0; i < count; i++) {
        const struct metric *metric = &metrics[i];
        if (metric->kind == METRIC_INTEGER)
            fprintf(out, " %s=%lld", metric->name, (long long)metric->integer);
        else if (metric->kind == METRIC_REAL)
            fprintf(out, " %s=%.6g", metric->name, metric->real);
        else
            fprintf(out, strpbrk(metric->text, " =\"\t\n") ? " %s=\"%s\"" : " %s=%s", metric->name,
                    metric->text);
    }
    fputc('\n', out);
}

static void print_event(struct progress *progress, const char *event, const struct metric *metrics,
                        int count) {
    if (progress->style == PROGRESS_JSON) {
        char *line = metric_json(event, metrics, count);
        fprintf(progress->out, "%s\n", line ? line : "{\"event\":\"unprintable\"}");
        free(line);
        return;
    }
    if (progress->drawn)
        fputs("\r\033[K", progress->out);
    print_line(progress->out, event, metrics, count);
    if (progress->drawn)
        fprintf(progress->out, "%.*s", width_of(progress->out) - 1, progress->bar);
}

static void print_step(struct progress *progress, const struct progress_step *step) {
    const struct metric metrics[] = {
        metric_integer("epoch", step->epoch),
        metric_integer("epochs", step->epochs),
        metric_integer("step", step->step),
        metric_integer("steps", step->steps),
        metric_real("loss", step->loss),
        metric_real("images_per_s", progress->images_per_ms * 1000),
        metric_real("seconds_left", seconds_left(progress, step)),
    };
    int count = sizeof metrics / sizeof *metrics;
    print_event(progress, "progress", metrics, seconds_left(progress, step) < 0 ? count - 1 : count);
}

static int64_t interval_of(enum progress_style style) {
    return style == PROGRESS_BAR    ? BAR_INTERVAL_MS
           : style == PROGRESS_JSON ? JSON_INTERVAL_MS
                                    : LINES_INTERVAL_MS;
}

void progress_step(struct progress *progress, const struct progress_step *step) {
    bool first = !progress->started, final = step->steps > 0 && step->step >= step->steps;
    measure(progress, step);
    if (!first && !final && step->now_ms - progress->shown_ms < interval_of(progress->style))
        return;
    progress->shown_ms = step->now_ms;
    if (progress->style == PROGRESS_BAR)
        draw_bar(progress, step);
    else
        print_step(progress, step);
    fflush(progress->out);
}

void progress_event(struct progress *progress, const char *event, const struct metric *metrics, int count) {
    print_event(progress, event, metrics, count);
    fflush(progress->out);
}
