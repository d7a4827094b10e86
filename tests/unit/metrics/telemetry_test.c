#include "common/metrics/telemetry.h"
#include "tests/unit/metrics/test.h"

#include <stdbool.h>
#include <stdlib.h>

/** What is written between text_open and text_close. */
struct text {
    FILE *out;
    char *text;
    size_t size;
};

static void text_open(struct text *text) {
    text->out = open_memstream(&text->text, &text->size);
    assert_non_null(text->out);
}

static void text_close(struct text *text) {
    assert_int_equal(ferror(text->out), 0);
    assert_int_equal(fclose(text->out), 0);
}

static const struct telemetry_family COUNTER = {"thorax_things_total", TELEMETRY_COUNTER, "Things."};
static const struct telemetry_family GAUGE = {"thorax_level", TELEMETRY_GAUGE, "A \\ and\na \"quote\"."};
static const struct telemetry_family TIMES = {"thorax_wait_seconds", TELEMETRY_HISTOGRAM, "Waiting."};

/* The strings follow "Exposition formats": what is escaped where, and how NaN and infinity are spelt. */
static void families_and_labels_are_written_and_escaped_as_the_format_says(void **state) {
    (void)state;
    struct text text;
    const struct telemetry_label labels[] = {{"kind", "a\\b\"c\nd"}, {"other", ""}, {NULL, NULL}};
    text_open(&text);
    telemetry_begin(text.out, &COUNTER);
    telemetry_value(text.out, &COUNTER, labels, 9007199254740991.0 / 16);
    telemetry_value(text.out, &COUNTER, NULL, 3);
    telemetry_single(text.out, &GAUGE, NAN);
    telemetry_value(text.out, &GAUGE, NULL, -INFINITY);
    text_close(&text);
    assert_string_equal(text.text,
                        "# HELP thorax_things_total Things.\n"
                        "# TYPE thorax_things_total counter\n"
                        "thorax_things_total{kind=\"a\\\\b\\\"c\\nd\",other=\"\"} 562949953421312\n"
                        "thorax_things_total 3\n"
                        "# HELP thorax_level A \\\\ and\\na \"quote\".\n"
                        "# TYPE thorax_level gauge\n"
                        "thorax_level NaN\n"
                        "thorax_level -Inf\n");
    free(text.text);
}

/** The number behind the line that starts with series; -1 where there is none. */
static double sample(const char *text, const char *series) {
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, series, strlen(series)) == 0 && line[strlen(series)] == ' ')
            return strtod(line + strlen(series), NULL);
    }
    return -1;
}

static void a_histogram_is_cumulative_with_sum_and_count(void **state) {
    (void)state;
    static struct histogram histogram;
    static const uint64_t values_us[] = {0, 100, 240, 700, 700, 40000, 900000, 70000000};
    struct text text;
    const struct telemetry_label labels[] = {{"stage", "queue"}, {NULL, NULL}};
    for (size_t i = 0; i < sizeof values_us / sizeof *values_us; i++)
        histogram_record(&histogram, values_us[i]);
    text_open(&text);
    telemetry_histogram(text.out, &TIMES, labels, &histogram, &telemetry_seconds);
    text_close(&text);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{stage=\"queue\",le=\"0.00025\"}"), 3, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{stage=\"queue\",le=\"0.0005\"}"), 3, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{stage=\"queue\",le=\"0.001\"}"), 5, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{stage=\"queue\",le=\"0.05\"}"), 6, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{stage=\"queue\",le=\"1\"}"), 7, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{stage=\"queue\",le=\"60\"}"), 7, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{stage=\"queue\",le=\"+Inf\"}"), 8, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_count{stage=\"queue\"}"), 8, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_sum{stage=\"queue\"}"), 70.94174, 1e-9);
    free(text.text);
}

/* Every count lies between the numbers of values that are surely below and surely not above the bound. */
static void no_value_is_counted_below_a_bound_that_it_is_above(void **state) {
    (void)state;
    for (uint64_t value = 1; value < 100000000; value += 1 + value / 3) {
        struct histogram histogram = {0};
        struct text text;
        histogram_record(&histogram, value);
        text_open(&text);
        telemetry_histogram(text.out, &TIMES, NULL, &histogram, &telemetry_seconds);
        text_close(&text);
        for (int i = 0; i < telemetry_seconds.count; i++) {
            char series[80];
            uint64_t bound = telemetry_seconds.bounds[i];
            snprintf(series, sizeof series, "thorax_wait_seconds_bucket{le=\"%.15g\"}", (double)bound * 1e-6);
            double count = sample(text.text, series);
            assert_true(count >= 0 && count <= (value <= bound) && count >= (value * 33 / 32 < bound));
        }
        free(text.text);
    }
}

static void numbers_of_images_keep_their_unit(void **state) {
    (void)state;
    static struct histogram histogram;
    struct text text;
    for (uint64_t images = 1; images <= 40; images++)
        histogram_record(&histogram, images);
    text_open(&text);
    telemetry_histogram(text.out, &TIMES, NULL, &histogram, &telemetry_images);
    text_close(&text);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{le=\"1\"}"), 1, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{le=\"8\"}"), 8, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{le=\"32\"}"), 32, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_bucket{le=\"+Inf\"}"), 40, 0);
    assert_near(sample(text.text, "thorax_wait_seconds_sum"), 820, 0);
    free(text.text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_and_labels_are_written_and_escaped_as_the_format_says),
        cmocka_unit_test(a_histogram_is_cumulative_with_sum_and_count),
        cmocka_unit_test(no_value_is_counted_below_a_bound_that_it_is_above),
        cmocka_unit_test(numbers_of_images_keep_their_unit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
