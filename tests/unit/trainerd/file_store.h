#pragma once
#include "trainerd/collective/collective.h"

/** Where ranks of a test meet: a file a key, in a private folder, which is borrowed and outlives the store. */
struct collective_store file_store(const char *folder);
