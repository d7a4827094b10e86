#include "common/metrics/confusion.h"

#include <assert.h>

bool confusion_init(struct confusion *confusion, int classes, struct error *err) {
    *confusion = (struct confusion){.classes = classes};
    if (classes < 2 || classes > METRICS_MAX_CLASSES)
        return error_set(err, ERROR_INVALID, "%d classes: metrics take 2 to %d", classes,
                         METRICS_MAX_CLASSES);
    return true;
}

bool confusion_add(struct confusion *confusion, int truth, int predicted, struct error *err) {
    if (truth < 0 || truth >= confusion->classes || predicted < 0 || predicted >= confusion->classes)
        return error_set(err, ERROR_INVALID, "class %d taken for class %d: there are %d classes", truth,
                         predicted, confusion->classes);
    confusion->counts[truth][predicted]++;
    return true;
}

void confusion_merge(struct confusion *into, const struct confusion *from) {
    assert(into->classes == from->classes);
    for (int truth = 0; truth < into->classes; truth++)
        for (int predicted = 0; predicted < into->classes; predicted++)
            into->counts[truth][predicted] += from->counts[truth][predicted];
}

static double ratio(int64_t part, int64_t whole) {
    return whole > 0 ? (double)part / (double)whole : 0.0;
}

static struct class_scores score_class(const struct confusion *confusion, int which) {
    int64_t predicted = 0, support = 0, right = confusion->counts[which][which];
    for (int other = 0; other < confusion->classes; other++) {
        predicted += confusion->counts[other][which];
        support += confusion->counts[which][other];
    }
    return (struct class_scores){ratio(right, predicted), ratio(right, support),
                                 ratio(2 * right, predicted + support), support};
}

static void accumulate(struct class_scores *sum, const struct class_scores *scores, double weight) {
    sum->precision += weight * scores->precision;
    sum->recall += weight * scores->recall;
    sum->f1 += weight * scores->f1;
    sum->support += scores->support;
}

struct confusion_summary confusion_summarise(const struct confusion *confusion) {
    struct confusion_summary summary = {0};
    int64_t right = 0;
    int present = 0;
    for (int i = 0; i < confusion->classes; i++) {
        summary.by_class[i] = score_class(confusion, i);
        summary.total += summary.by_class[i].support;
        right += confusion->counts[i][i];
        present += summary.by_class[i].support > 0;
    }
    for (int i = 0; i < confusion->classes; i++) {
        const struct class_scores *scores = &summary.by_class[i];
        if (scores->support == 0)
            continue;
        accumulate(&summary.macro, scores, 1.0 / present);
        accumulate(&summary.weighted, scores, ratio(scores->support, summary.total));
    }
    summary.accuracy = ratio(right, summary.total);
    summary.balanced_accuracy = summary.macro.recall;
    return summary;
}
