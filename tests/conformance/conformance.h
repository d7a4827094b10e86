#pragma once
#include "common/op/precision.h"
#include "tests/conformance/inputs.h"
#include "tests/conformance/rounding.h"

/** The worst of what was seen for one precision, kind and pass. */
struct conformance_worst {
    int runs, failures, in_place; /**< in_place: runs in which an output took over an input's buffer */
    double error;                 /**< over one output: max |a - b| / max |b|, less what rounding to its dtype may cost */
    struct rounding rounding; /**< of what operations on integers leave in a dtype narrower than f32 */
    enum arg arg;
    char text[160];          /**< the case */
    char implementation[64]; /**< that computed it */
};

struct conformance {
    struct device *tested, *oracle;
    bool exact; /**< the devices must agree bit for bit */
    struct conformance_worst worst[PRECISION_COUNT][OP_KIND_COUNT][PASS_COUNT];
};

/** Whether the tested device computes in that precision at all; in int8: whether it has 8-bit convolutions. */
bool conformance_supports(const struct conformance *conformance, enum precision precision);

/**
 * Runs a case in all its passes that the precision changes (f32: in all) on both devices, with canonical layouts and with those
 * that the device prefers, with outputs apart from and in place of inputs, and compares every output. What differs too much,
 * and what the tested device cannot do, is counted and printed to stdout. False: the oracle itself failed.
 */
bool conformance_case(struct conformance *conformance, enum precision precision, const struct op_case *c, struct error *err);

/** Prints a line for each precision, kind and pass. Returns the number of failures. */
int conformance_report(const struct conformance *conformance);
