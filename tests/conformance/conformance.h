#pragma once
#include "tests/conformance/inputs.h"

/** The worst of what was seen for one kind and pass. */
struct conformance_worst {
    int runs, failures, in_place; /**< in_place: runs in which an output took over an input's buffer */
    double error;                 /**< max |a - b| / max |b| over one output */
    enum arg arg;
    char text[160];          /**< the case */
    char implementation[64]; /**< that computed it */
};

struct conformance {
    struct device *tested, *oracle;
    bool exact; /**< the devices must agree bit for bit */
    struct conformance_worst worst[OP_KIND_COUNT][PASS_COUNT];
};

/**
 * Runs a case in all its passes on both devices, with canonical layouts and with those that the device
 * prefers, with outputs apart from and in place of inputs, and compares every output. What differs too much,
 * and what the tested device cannot do, is counted and printed to stdout. False: the oracle itself failed.
 */
bool conformance_case(struct conformance *conformance, const struct op_case *c, struct error *err);

/** Prints a line for each kind and pass. Returns the number of failures. */
int conformance_report(const struct conformance *conformance);
