#pragma once
#include "common/metrics/report.h"
#include <stddef.h>

enum { SAMPLES = 200, SAMPLE_CLASSES = 3 };

/** The samples that expected.py draws, and their softmax. */
struct samples {
    float logits[SAMPLES * SAMPLE_CLASSES];
    double probabilities[SAMPLES * SAMPLE_CLASSES];
    int32_t labels[SAMPLES];
};

static inline int sample_draw(uint32_t *state) {
    *state = (1103515245u * *state + 12345u) & 0x7fffffffu;
    return (int)((*state >> 8) % 1000);
}

static inline struct predictions samples_draw(struct samples *samples) {
    uint32_t state = 1;
    for (int row = 0; row < SAMPLES; row++) {
        float *logits = samples->logits + row * SAMPLE_CLASSES;
        int best = 0;
        for (int i = 0; i < SAMPLE_CLASSES; i++) {
            logits[i] = (float)(sample_draw(&state) % 32) / 8.0f - 2.0f;
            best = logits[i] > logits[best] ? i : best;
        }
        int draw = sample_draw(&state);
        samples->labels[row] = draw < 600 ? best : draw % SAMPLE_CLASSES;
    }
    calibration_softmax(samples->logits, SAMPLES, SAMPLE_CLASSES, 1.0, samples->probabilities);
    return (struct predictions){SAMPLE_CLASSES, SAMPLES, samples->probabilities, samples->labels, NULL};
}
