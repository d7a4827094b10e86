#include "common/metrics/plot.h"

#include "common/base/file.h"

#include <cairo.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 720, HEIGHT = 680, LEFT = 130, TOP = 90, SIDE = 500 };

struct colour {
    double red, green, blue;
};

static const struct colour ink = {0.13, 0.15, 0.18}, faint = {0.80, 0.82, 0.85}, paper = {1.0, 1.0, 1.0};

/* Okabe and Ito's palette, which the colour-blind can tell apart. */
static const struct colour palette[] = {{0.00, 0.45, 0.70}, {0.84, 0.37, 0.00}, {0.00, 0.62, 0.45},
                                        {0.80, 0.47, 0.65}, {0.34, 0.71, 0.91}, {0.90, 0.62, 0.00},
                                        {0.60, 0.55, 0.10}};
enum { COLOURS = sizeof palette / sizeof palette[0] };

static void use(cairo_t *cairo, struct colour colour) {
    cairo_set_source_rgb(cairo, colour.red, colour.green, colour.blue);
}

enum anchor { ANCHOR_LEFT, ANCHOR_CENTRE, ANCHOR_RIGHT };

static void write_text(cairo_t *cairo, const char *text, double x, double y, enum anchor anchor) {
    cairo_text_extents_t extents;
    cairo_text_extents(cairo, text, &extents);
    cairo_move_to(cairo, x - extents.x_advance * anchor / 2.0, y);
    cairo_show_text(cairo, text);
}

static void write_upwards(cairo_t *cairo, const char *text, double x, double y) {
    cairo_save(cairo);
    cairo_translate(cairo, x, y);
    cairo_rotate(cairo, -M_PI / 2.0);
    write_text(cairo, text, 0.0, 0.0, ANCHOR_CENTRE);
    cairo_restore(cairo);
}

static void write_title(cairo_t *cairo, const struct report *report, const char *what) {
    char line[256];
    snprintf(line, sizeof line, "%s: %.80s on %.40s, %lld samples", what, report->spec.title,
             report->spec.part, (long long)report->summary.total);
    use(cairo, ink);
    cairo_set_font_size(cairo, 19);
    write_text(cairo, line, WIDTH / 2.0, 36, ANCHOR_CENTRE);
    cairo_set_font_size(cairo, 12);
    write_text(cairo, REPORT_NOTICE, WIDTH / 2.0, 60, ANCHOR_CENTRE);
}

static void draw_cell(cairo_t *cairo, const struct report *report, int truth, int answer) {
    double size = (double)SIDE / report->confusion.classes, x = LEFT + answer * size, y = TOP + truth * size;
    int64_t count = report->confusion.counts[truth][answer],
            support = report->summary.by_class[truth].support;
    double share = support > 0 ? (double)count / (double)support : 0.0;
    /* From paper to the palette's blue; numbers turn white where the cell gets dark. */
    use(cairo, (struct colour){1.0 - share, 1.0 - 0.55 * share, 1.0 - 0.30 * share});
    cairo_rectangle(cairo, x, y, size, size);
    cairo_fill_preserve(cairo);
    use(cairo, faint);
    cairo_stroke(cairo);
    use(cairo, share > 0.5 ? paper : ink);
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)count);
    cairo_set_font_size(cairo, fmin(28.0, size / 4.0));
    write_text(cairo, text, x + size / 2.0, y + size / 2.0, ANCHOR_CENTRE);
    snprintf(text, sizeof text, "%.1f %%", 100.0 * share);
    cairo_set_font_size(cairo, fmin(15.0, size / 6.0));
    write_text(cairo, text, x + size / 2.0, y + size / 2.0 + fmin(26.0, size / 4.0), ANCHOR_CENTRE);
}

static void draw_confusion(cairo_t *cairo, const struct report *report) {
    write_title(cairo, report, "Confusion matrix");
    int classes = report->confusion.classes;
    double size = (double)SIDE / classes;
    cairo_set_line_width(cairo, 1.0);
    for (int truth = 0; truth < classes; truth++)
        for (int answer = 0; answer < classes; answer++)
            draw_cell(cairo, report, truth, answer);
    use(cairo, ink);
    cairo_set_font_size(cairo, fmin(15.0, size / 4.0));
    for (int i = 0; i < classes; i++) {
        write_text(cairo, report->spec.class_names[i], LEFT + (i + 0.5) * size, TOP + SIDE + 26,
                   ANCHOR_CENTRE);
        write_upwards(cairo, report->spec.class_names[i], LEFT - 16, TOP + (i + 0.5) * size);
    }
    cairo_set_font_size(cairo, 15);
    write_text(cairo, "answer", LEFT + SIDE / 2.0, TOP + SIDE + 62, ANCHOR_CENTRE);
    write_upwards(cairo, "truth", LEFT - 60, TOP + SIDE / 2.0);
}

static void draw_axes(cairo_t *cairo) {
    cairo_set_line_width(cairo, 1.0);
    cairo_set_font_size(cairo, 13);
    for (int tick = 0; tick <= 5; tick++) {
        double x = LEFT + SIDE * tick / 5.0, y = TOP + SIDE - SIDE * tick / 5.0;
        char text[16];
        snprintf(text, sizeof text, "%.1f", tick / 5.0);
        use(cairo, faint);
        cairo_move_to(cairo, x, TOP);
        cairo_line_to(cairo, x, TOP + SIDE);
        cairo_move_to(cairo, LEFT, y);
        cairo_line_to(cairo, LEFT + SIDE, y);
        cairo_stroke(cairo);
        use(cairo, ink);
        write_text(cairo, text, x, TOP + SIDE + 22, ANCHOR_CENTRE);
        write_text(cairo, text, LEFT - 10, y + 5, ANCHOR_RIGHT);
    }
    cairo_set_font_size(cairo, 15);
    write_text(cairo, "false positive rate (1 - specificity)", LEFT + SIDE / 2.0, TOP + SIDE + 56,
               ANCHOR_CENTRE);
    write_upwards(cairo, "true positive rate (sensitivity)", LEFT - 60, TOP + SIDE / 2.0);
    const double dashes[] = {6.0, 5.0};
    cairo_set_dash(cairo, dashes, 2, 0.0);
    cairo_move_to(cairo, LEFT, TOP + SIDE);
    cairo_line_to(cairo, LEFT + SIDE, TOP);
    cairo_stroke(cairo);
    cairo_set_dash(cairo, NULL, 0, 0.0);
}

/* One curve, and its line of the legend in the lower right corner. */
static void draw_curve(cairo_t *cairo, const struct roc *roc, const char *label, int row) {
    use(cairo, palette[row % COLOURS]);
    cairo_set_line_width(cairo, 2.2);
    cairo_new_path(cairo); /* text leaves a current point behind */
    for (int64_t i = 0; i < roc->count; i++)
        cairo_line_to(cairo, LEFT + SIDE * roc->points[i].false_positive_rate,
                      TOP + SIDE - SIDE * roc->points[i].true_positive_rate);
    cairo_stroke(cairo);
    double y = TOP + SIDE - 22 - 22 * row;
    use(cairo, paper);
    cairo_rectangle(cairo, LEFT + SIDE - 335, y - 17, 333, 22);
    cairo_fill(cairo);
    use(cairo, palette[row % COLOURS]);
    cairo_move_to(cairo, LEFT + SIDE - 330, y - 5);
    cairo_line_to(cairo, LEFT + SIDE - 300, y - 5);
    cairo_stroke(cairo);
    char text[160];
    snprintf(text, sizeof text, "%.60s: area %.4f", label, roc->area);
    use(cairo, ink);
    cairo_set_font_size(cairo, 13);
    write_text(cairo, text, LEFT + SIDE - 290, y, ANCHOR_LEFT);
}

static void draw_roc(cairo_t *cairo, const struct report *report) {
    const struct report_spec *spec = &report->spec;
    write_title(cairo, report, "ROC curves");
    draw_axes(cairo);
    char label[160];
    int row = 0;
    for (int i = 0; i < report->confusion.classes; i++) {
        if (report->class_curves[i].count == 0)
            continue;
        snprintf(label, sizeof label, "%.40s against the rest", spec->class_names[i]);
        draw_curve(cairo, &report->class_curves[i], label, row++);
    }
    if (report->pair_curve.count == 0)
        return;
    snprintf(label, sizeof label, "%.24s against %.24s", spec->class_names[spec->positive_class],
             spec->class_names[spec->negative_class]);
    draw_curve(cairo, &report->pair_curve, label, row);
}

struct buffer {
    uint8_t *data;
    size_t size, capacity;
};

static cairo_status_t append(void *closure, const unsigned char *data, unsigned int length) {
    struct buffer *buffer = closure;
    if (buffer->size + length > buffer->capacity) {
        size_t capacity = (buffer->capacity + length) * 2;
        uint8_t *grown = realloc(buffer->data, capacity);
        if (!grown)
            return CAIRO_STATUS_NO_MEMORY;
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    memcpy(buffer->data + buffer->size, data, length);
    buffer->size += length;
    return CAIRO_STATUS_SUCCESS;
}

static bool cairo_ok(cairo_status_t status, const char *path, struct error *err) {
    if (status == CAIRO_STATUS_SUCCESS)
        return true;
    return error_set(err, status == CAIRO_STATUS_NO_MEMORY ? ERROR_MEMORY : ERROR_INTERNAL, "%s: drawing: %s",
                     path, cairo_status_to_string(status));
}

static bool draw_file(const struct report *report, void (*draw)(cairo_t *, const struct report *),
                      const char *path, struct error *err) {
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, WIDTH, HEIGHT);
    cairo_t *cairo = cairo_create(surface);
    struct buffer png = {0};
    /* Cairo's built-in letters: the same picture on a machine without fonts. */
    cairo_select_font_face(cairo, "@cairo:", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    use(cairo, paper);
    cairo_paint(cairo);
    draw(cairo, report);
    bool ok = cairo_ok(cairo_status(cairo), path, err) &&
              cairo_ok(cairo_surface_write_to_png_stream(surface, append, &png), path, err) &&
              file_write_atomic(path, png.data, png.size, err);
    free(png.data);
    cairo_destroy(cairo);
    cairo_surface_destroy(surface);
    return ok;
}

bool plot_confusion(const struct report *report, const char *path, struct error *err) {
    return draw_file(report, draw_confusion, path, err);
}

bool plot_roc(const struct report *report, const char *path, struct error *err) {
    return draw_file(report, draw_roc, path, err);
}
