#include "tests/unit/weights/sample_manifest.h"

static const char *classes[] = {"NORMAL", "PNEUMONIA", "INVALID"};
static const char *views[] = {"AP", "PA"};
static struct manifest_operating_point points[] = {
    {"balanced", "PNEUMONIA", 0.42, 0.95, 0.9},
    {"sensitive", "PNEUMONIA", 0.1, 0.99, 0.75},
};
static struct manifest_metric metrics[] = {{"auc.PNEUMONIA", "phantoms", "validation", 0.123456789012345678}};

struct manifest sample_manifest(void) {
    struct manifest manifest = manifest_empty();
    manifest.name = "chest";
    manifest.version = "1.0-rc_2";
    manifest.architecture = (struct manifest_architecture){"resnet18", "3x3", 1, 28};
    manifest.class_count = 3;
    manifest.classes = classes;
    manifest.preprocessing = "{\"version\":1,\"mean\":[0.1]}";
    manifest.temperature = 1.25;
    manifest.operating_point_count = 2;
    manifest.operating_points = points;
    manifest.metric_count = 1;
    manifest.metrics = metrics;
    manifest.intended_use = (struct manifest_intended_use){1, 5, 2, views, "Research only,\nnot a device."};
    manifest.data_digest = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    manifest.training =
        (struct manifest_training){"", "run 1", "0.1.0", "2026-11-23T01:02:03.456Z", INT64_MAX, 9};
    return manifest;
}
