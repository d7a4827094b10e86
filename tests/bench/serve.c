#include "tests/bench/serve.h"

#include "common/base/clock.h"
#include "common/base/text.h"
#include "tests/bench/machine.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RUNS = 100000 };

static bool answer_run(struct subject *subject, struct split *split, const char *count_text, FILE *out, struct error *err) {
    int64_t count;
    if (!text_to_int(count_text, 1, MAX_RUNS, &count, err))
        return false;
    double *ms = malloc((size_t)count * sizeof *ms);
    bool good = ms || error_set(err, ERROR_MEMORY, "out of memory for %d figures", (int)count);
    for (int64_t i = 0; good && i < count; i++) {
        int64_t start = clock_now_ns();
        good = split ? split_run(split, NULL, err) : subject_run(subject, NULL, err);
        ms[i] = subject_elapsed_ms(start);
    }
    for (int64_t i = 0; good && i < count; i++)
        fprintf(out, "%s%.4f", i ? ", " : "{\"ms\": [", ms[i]);
    if (good)
        fprintf(out, "]}\n");
    free(ms);
    return good;
}

static bool run_whole(struct subject *subject, float *logits, float *loss, struct error *err) {
    return plan_run(subject->plan, err) && plan_read_logits(subject->plan, logits, err) &&
           (subject->options.infer || plan_read_loss(subject->plan, loss, err));
}

static bool answer_logits(struct subject *subject, struct split *split, FILE *out, struct error *err) {
    int count = subject->options.batch * SUBJECT_CLASSES;
    float loss = 0, *logits = malloc((size_t)count * sizeof *logits);
    bool good = (logits || error_set(err, ERROR_MEMORY, "out of memory for logits")) &&
                (split ? split_run(split, logits, err) : run_whole(subject, logits, &loss, err));
    for (int i = 0; good && i < count; i++)
        fprintf(out, "%s%.9g", i ? ", " : "{\"logits\": [", (double)logits[i]);
    if (good && subject->options.infer)
        fprintf(out, "]}\n");
    else if (good)
        fprintf(out, "], \"loss\": %.9g}\n", (double)loss);
    free(logits);
    return good;
}

static bool answer(struct subject *subject, struct split *split, const char *line, FILE *out, struct error *err) {
    if (strncmp(line, "run ", 4) == 0)
        return answer_run(subject, split, line + 4, out, err);
    if (strcmp(line, "logits") == 0)
        return answer_logits(subject, split, out, err);
    if (strcmp(line, "machine") != 0)
        return error_set(err, ERROR_INVALID, "\"%s\" is none of run N, logits, machine", line);
    struct machine machine = machine_describe(subject);
    if (split)
        split_text(split, machine.split, sizeof machine.split);
    machine_print_json(&machine, out);
    fputc('\n', out);
    return true;
}

bool serve(struct subject *subject, struct split *split, FILE *in, FILE *out, struct error *err) {
    char line[64];
    fputs("ready\n", out);
    fflush(out);
    while (fgets(line, sizeof line, in)) {
        line[strcspn(line, "\n")] = '\0';
        if (!answer(subject, split, line, out, err))
            return false;
        fflush(out);
    }
    return true;
}
