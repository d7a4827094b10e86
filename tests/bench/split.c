#include "tests/bench/split.h"

#include "common/base/clock.h"
#include "inferd/ladder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct split {
    struct ladder ladder;
    struct subject steps[LADDER_MAX];
    int opened, batch;
    size_t image_floats;
    float *images; /* twice the batch, so that the last part may be padded */
    float *logits; /* of one part */
};

static bool allocate(struct split *split, struct error *err) {
    const struct subject_options *o = &split->steps[0].options;
    split->image_floats = (size_t)o->channels * (size_t)o->size * (size_t)o->size;
    split->images = malloc(2 * (size_t)split->batch * split->image_floats * sizeof *split->images);
    split->logits = malloc((size_t)split->batch * SUBJECT_CLASSES * sizeof *split->logits);
    if (!split->images || !split->logits)
        return error_set(err, ERROR_MEMORY, "out of memory for a batch");
    subject_draw(split->images, 2 * (size_t)split->batch * split->image_floats);
    return true;
}

/* Steps of 1, 2, 4, ... and the whole batch, as inferd has them. */
static bool open_steps(struct split *split, const struct subject *first, struct error *err) {
    for (int images = 1; split->opened < LADDER_MAX; images = 2 * images < split->batch ? 2 * images : split->batch) {
        struct subject *step = &split->steps[split->opened++];
        split->ladder.images[split->ladder.count++] = images;
        if (!subject_open_beside(step, first, images, err) || !subject_fill(step, err))
            return false;
        if (images == split->batch)
            return true;
    }
    return error_set(err, ERROR_TOO_LARGE, "a batch of %d has more than %d steps", split->batch, LADDER_MAX);
}

static bool measure(struct split *split, struct error *err) {
    enum { ROUNDS = 5 };
    for (int round = 0; round < ROUNDS; round++) {
        for (int step = 0; step < split->ladder.count; step++) {
            int64_t start = clock_now_ns();
            if (!subject_run(&split->steps[step], NULL, err))
                return false;
            ladder_note(&split->ladder, step, subject_elapsed_ms(start) * 1e3);
        }
    }
    return true;
}

struct split *split_open(const struct subject *first, struct error *err) {
    struct split *split = calloc(1, sizeof *split);
    if (!split) {
        error_set(err, ERROR_MEMORY, "out of memory for a split");
        return NULL;
    }
    split->batch = first->options.batch;
    if (open_steps(split, first, err) && allocate(split, err) && measure(split, err))
        return split;
    split_close(split);
    return NULL;
}

void split_close(struct split *split) {
    if (!split)
        return;
    while (split->opened > 0)
        subject_close(&split->steps[--split->opened]);
    free(split->images);
    free(split->logits);
    free(split);
}

static bool run_part(struct split *split, int begin, int count, float *logits, struct error *err) {
    struct subject *step = &split->steps[ladder_step(&split->ladder, count)];
    if (!plan_set_images(step->plan, split->images + (size_t)begin * split->image_floats, err) ||
        !subject_run(step, NULL, err) || !plan_read_logits(step->plan, split->logits, err))
        return false;
    if (logits)
        memcpy(logits + begin * SUBJECT_CLASSES, split->logits, (size_t)count * SUBJECT_CLASSES * sizeof *logits);
    return true;
}

bool split_run(struct split *split, float *logits, struct error *err) {
    for (int begin = 0, count; begin < split->batch; begin += count) {
        count = ladder_take(&split->ladder, split->batch - begin);
        if (!run_part(split, begin, count, logits, err))
            return false;
    }
    return true;
}

const char *split_text(const struct split *split, char *out, size_t size) {
    size_t used = 0;
    out[0] = '\0';
    for (int begin = 0, count; begin < split->batch && used < size; begin += count) {
        count = ladder_take(&split->ladder, split->batch - begin);
        used += (size_t)snprintf(out + used, size - used, "%s%d", begin ? "+" : "", count);
    }
    return out;
}
