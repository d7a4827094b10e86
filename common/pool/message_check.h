#pragma once
#include "proto/pool.pb-c.h"

/**
 * What protobuf does not check of the messages of proto/pool.proto: enums, lengths of digests and lists,
 * texts, ranges. Each returns what is wrong, in words for a log, or NULL. message.c calls them on all that it
 * unpacks.
 */
const char *pool_announcement_fault(const Thorax__V1__Announcement *message);
const char *pool_request_fault(const Thorax__V1__ControlRequest *message);
const char *pool_reply_fault(const Thorax__V1__ControlReply *message);
const char *pool_blob_request_fault(const Thorax__V1__BlobRequest *message);
const char *pool_blob_chunk_fault(const Thorax__V1__BlobChunk *message);
/** A plan by itself, e.g. one read from a file. */
const char *pool_plan_fault(const Thorax__V1__RolloutPlan *plan);
