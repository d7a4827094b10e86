#pragma once
#include "common/weights/manifest.h"

/** A manifest with something in every field; borrows from static memory. */
struct manifest sample_manifest(void);
