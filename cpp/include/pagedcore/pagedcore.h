/* The C ABI of pagedcore: open a model container, submit token ids, collect tokens.
 *
 * Errors.    A function that can fail returns a pc_status, PC_OK being 0, and writes its results only on PC_OK.
 *            pc_last_error() then says what happened, with the value, the limit and the remedy. No C++ exception
 *            crosses.
 * Ownership. What a function hands out through a pointer to a pointer belongs to the caller, who gives it to the
 *            matching pc_..._free(). Everything passed in is copied before the call returns. Strings and arrays inside
 *            a pc_output belong to its pc_outputs, those of a pc_record to the record.
 * Threads.   All functions of an engine may be called from any thread at the same time, but pc_engine_free() must be
 *            the last. A pc_options is used by one thread at a time; pc_outputs and pc_record are read-only.
 * fork().    In a child every call on an engine of the parent fails with PC_ABORTED; nothing hangs.
 * Stability. A program that was linked with libpagedcore_c.so.1 runs with every later one of that name. Options, plans
 *            and statistics are reached by name, so a new one changes no declaration. Structures that are elements of
 *            an array (pc_token_logprob, pc_position_logprobs, pc_token_bias, pc_request) never change; others grow at
 *            their end only and say their size.
 *
 * C99 and later, C++.
 */
#ifndef PAGEDCORE_PAGEDCORE_H
#define PAGEDCORE_PAGEDCORE_H

#include <stddef.h>
#include <stdint.h>

#include "pagedcore/export.hpp" /* PAGEDCORE_API; plain preprocessor, fine for C */

#ifdef __cplusplus
#define PC_NOEXCEPT noexcept
extern "C" {
#else
#define PC_NOEXCEPT
#endif

typedef enum pc_status {
  PC_OK = 0,
  PC_INVALID_ARGUMENT = 1, /* something outside its documented range; nothing has changed */
  PC_OUT_OF_MEMORY = 2,    /* nothing has changed */
  PC_UNSUPPORTED = 3,      /* a model, type, device or instruction set that this build or machine does not serve */
  PC_CORRUPT = 4,          /* a file contradicts itself, or an invariant is broken */
  PC_ABORTED = 5,          /* the engine was closed, has failed, or is used in a child of fork() */
  PC_IO = 6,               /* the operating system refused to open, map, read or write */
  PC_INTERNAL = 7,         /* anything else: please report it */
  PC_OVERLOADED = 8        /* too many requests wait: the same call may succeed later; nothing has changed */
} pc_status;

/* The name of a status, such as "PC_OK". Never null. */
PAGEDCORE_API const char* pc_status_name(pc_status status) PC_NOEXCEPT;
/* Message of the last failed call on this thread; empty when there was none. Valid until the next failure on this
 * thread. */
PAGEDCORE_API const char* pc_last_error(void) PC_NOEXCEPT;
/* "major.minor.patch" of the library that is loaded. */
PAGEDCORE_API const char* pc_version(void) PC_NOEXCEPT;

/* ---- Options, by name ----
 *
 * docs/options.md lists all names with their limits and meanings; pc_options_describe() gives the same at run time. */

typedef enum pc_options_kind {
  PC_OPTIONS_ENGINE = 0,      /* block_size, kv_cache_memory, order, device, threads ... */
  PC_OPTIONS_SAMPLING = 1,    /* of a request: n, temperature, max_tokens ..., prefix, salt, priority, tenant,
                                 request_id, deadline, stream */
  PC_OPTIONS_BEAM_SEARCH = 2, /* of a beam search: beam_width, length_penalty ..., and the same seven */
  PC_OPTIONS_EMBEDDING = 4,   /* of an embedding: pooling, normalize, dimensions, and the same seven but for stream */
  PC_OPTIONS_SNAPSHOT = 5     /* how much a snapshot holds: max_cells, max_requests, max_entries, first */
} pc_options_kind;

typedef struct pc_options pc_options; /* opaque */

/* All options of a kind at their defaults. */
PAGEDCORE_API pc_status pc_options_new(pc_options_kind kind, pc_options** options) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_options_copy(const pc_options* options, pc_options** copy) PC_NOEXCEPT;
/* Null is allowed. */
PAGEDCORE_API void pc_options_free(pc_options* options) PC_NOEXCEPT;

/* Sets one option from text: "256", "0.5", "true", "1.5GiB", "fair", "7,8,9" for tokens, "7:-1.5" for a bias, "none"
 * where that has a meaning. PC_INVALID_ARGUMENT, with nothing changed, for an unknown name (the nearest one is named)
 * and for a text that is no such value. Limits are checked where the options are used. */
PAGEDCORE_API pc_status pc_options_set(pc_options* options, const char* name, const char* text) PC_NOEXCEPT;
/* The same from a number, whatever the locale. */
PAGEDCORE_API pc_status pc_options_set_integer(pc_options* options, const char* name, int64_t value) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_options_set_real(pc_options* options, const char* name, double value) PC_NOEXCEPT;
/* Options of type tokens, such as stop_token_ids. `tokens` may be null when count is 0: an empty
 * list is "none"; as allowed_token_ids it allows all. */
PAGEDCORE_API pc_status pc_options_set_tokens(pc_options* options, const char* name, const int32_t* tokens,
                                              size_t count) PC_NOEXCEPT;
typedef struct pc_token_bias {
  int32_t token;
  float bias; /* added to the logit; -INFINITY bans the token */
} pc_token_bias;
/* logit_bias. `biases` may be null when count is 0. */
PAGEDCORE_API pc_status pc_options_set_biases(pc_options* options, const char* name, const pc_token_bias* biases,
                                              size_t count) PC_NOEXCEPT;
/* The functions of one kind of matcher, which holds outputs to a form. They are called by the engine's threads: for one
 * matcher by one thread at a time, for different ones at the same time. None may throw, wait, or call an engine. Those
 * of llguidance's C interface can stand here as they are. */
typedef struct pc_constraint_table {
  size_t struct_size; /* set it to sizeof(pc_constraint_table) */
  /* Bit t % 32 of mask[t / 32] becomes 1 where token t may come next; a stop token may where the output may end.
   * `bytes`: of the mask, 4 * ceil(vocabulary / 32); it is all 0. Returns 0, or another number when it has failed. */
  int32_t (*compute_mask)(void* matcher, uint32_t* mask, size_t bytes);
  /* `token` has come, one that the mask before allowed. Returns as compute_mask. */
  int32_t (*consume_token)(void* matcher, uint32_t token);
  /* Why it has failed: a text that lives until the next call, or null. This function may be null. */
  const char* (*error)(void* matcher);
  /* Another matcher at the same place, which depends on this one in nothing; null: there is no memory for it. */
  void* (*clone)(const void* matcher);
  void (*free)(void* matcher);
} pc_constraint_table;
/* Outputs of all requests that are submitted with these options (of sampling or of a beam search) are held to what
 * `matcher`, which is at its beginning, allows. It belongs to the options and to the requests from now on, unless the
 * call fails: the last of them frees it, on whichever thread that is. The table is copied. `bytes`: of host memory,
 * that a sample's clone may come to hold, which counts with request_memory. A null table takes the constraint away. */
PAGEDCORE_API pc_status pc_options_set_constraint(pc_options* options, const pc_constraint_table* table, void* matcher,
                                                  size_t bytes) PC_NOEXCEPT;
/* The value as pc_options_set() takes it. Writes at most `capacity` bytes, the last of them 0, and its whole length
 * without that 0 to *length; `buffer` may be null when capacity is 0. Call again with length + 1 when it was cut. */
PAGEDCORE_API pc_status pc_options_get(const pc_options* options, const char* name, char* buffer, size_t capacity,
                                       size_t* length) PC_NOEXCEPT;

/* What there is to know of an option. Strings are never null, and stay valid as long as the library is loaded. */
typedef struct pc_option_info {
  size_t struct_size;        /* set it to sizeof(pc_option_info): no more is written */
  const char* name;          /* "temperature" */
  const char* type;          /* bool, int, float, size (bytes), choice, string, path, tokens, biases or list */
  const char* default_value; /* as text */
  const char* limits;        /* "[1, 65536]", "at least 0"; empty: those of its type */
  const char* choices;       /* of a choice, separated by commas; else empty */
  const char* doc;           /* a sentence or several */
} pc_option_info;
PAGEDCORE_API pc_status pc_options_count(const pc_options* options, size_t* count) PC_NOEXCEPT;
/* The index-th option, in [0, count). */
PAGEDCORE_API pc_status pc_options_describe(const pc_options* options, size_t index, pc_option_info* info) PC_NOEXCEPT;

/* ---- Records: values by name ----
 *
 * Memory plans, statistics, descriptions of models, the metadata of a container, the parts of a snapshot. */

typedef struct pc_record pc_record; /* opaque */

PAGEDCORE_API size_t pc_record_count(const pc_record* record) PC_NOEXCEPT;
/* The index-th name; null when `index` is out of range. */
PAGEDCORE_API const char* pc_record_name(const pc_record* record, size_t index) PC_NOEXCEPT;
/* A value as text. PC_INVALID_ARGUMENT for an unknown name, listing those that there are. */
PAGEDCORE_API pc_status pc_record_text(const pc_record* record, const char* name, const char** text) PC_NOEXCEPT;
/* A value as a number: true is 1. PC_INVALID_ARGUMENT also for a text that is none. */
PAGEDCORE_API pc_status pc_record_number(const pc_record* record, const char* name, double* number) PC_NOEXCEPT;
/* Null is allowed. */
PAGEDCORE_API void pc_record_free(pc_record* record) PC_NOEXCEPT;

/* ---- Containers ---- */

/* The description of the model in a container: vocab_size, num_layers ... */
PAGEDCORE_API pc_status pc_container_model(const char* container_path, pc_record** description) PC_NOEXCEPT;
/* What a container says about text: tokenizer (a tokenizer.json), chat_template, eos_token_ids ("2,7"), bos_token_id.
 */
PAGEDCORE_API pc_status pc_container_text(const char* container_path, pc_record** text) PC_NOEXCEPT;
/* The token ids that end a sequence, as far as the container names them: give them to stop_token_ids. Writes at most
 * `capacity` of them, and how many there are to *count; `tokens` may be null when capacity is 0. */
PAGEDCORE_API pc_status pc_container_eos_token_ids(const char* container_path, int32_t* tokens, size_t capacity,
                                                   size_t* count) PC_NOEXCEPT;
/* Every byte that an engine with these options would hold, without loading it. `options` (of an engine) may be null:
 * the defaults. Names: weights, activations, kv_block, kv_cache, total, kv_tokens, num_blocks, block_size ... */
PAGEDCORE_API pc_status pc_plan_memory(const char* container_path, const pc_options* options,
                                       pc_record** plan) PC_NOEXCEPT;

/* ---- Engine ---- */

typedef struct pc_engine pc_engine; /* opaque */

/* Loads a container and starts an engine, to be given to pc_engine_free(). `options` may be null: the defaults. */
PAGEDCORE_API pc_status pc_engine_open(const char* container_path, const pc_options* options,
                                       pc_engine** engine) PC_NOEXCEPT;
/* Ends all requests, stops the threads, returns the memory. Calls on the engine fail with PC_ABORTED from then on. May
 * be called repeatedly, from any thread. */
PAGEDCORE_API pc_status pc_engine_close(pc_engine* engine) PC_NOEXCEPT;
/* Closes and destroys. Null is allowed. */
PAGEDCORE_API void pc_engine_free(pc_engine* engine) PC_NOEXCEPT;

/* Device, instruction set, threads and the like, for people: text as of pc_options_get(). */
PAGEDCORE_API pc_status pc_engine_describe(const pc_engine* engine, char* buffer, size_t capacity,
                                           size_t* length) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_engine_memory_plan(const pc_engine* engine, pc_record** plan) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_engine_model(const pc_engine* engine, pc_record** description) PC_NOEXCEPT;
/* Counters and gauges at this moment; docs/stats.md lists them. */
PAGEDCORE_API pc_status pc_engine_stats(const pc_engine* engine, pc_record** stats) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_engine_clear_prefix_cache(pc_engine* engine) PC_NOEXCEPT;

/* Computes a prefix and keeps its blocks under a name until it is released: requests whose options `prefix` and `salt`
 * name it share them. *request is the id of the request that computes it, whose one output says PC_FINISH_LENGTH when
 * it is there. A prefix belongs to its salt: under any other its name is unknown. */
PAGEDCORE_API pc_status pc_engine_register_prefix(pc_engine* engine, const char* name, const int32_t* tokens,
                                                  size_t count, uint64_t salt, uint64_t* request) PC_NOEXCEPT;
/* The same, usable under every salt that has no prefix of its own by this name. */
PAGEDCORE_API pc_status pc_engine_register_shared_prefix(pc_engine* engine, const char* name, const int32_t* tokens,
                                                         size_t count, uint64_t salt, uint64_t* request) PC_NOEXCEPT;
/* One that was registered under salt 0. */
PAGEDCORE_API pc_status pc_engine_release_prefix(pc_engine* engine, const char* name) PC_NOEXCEPT;
/* One that was registered under this salt, shared or not. */
PAGEDCORE_API pc_status pc_engine_release_salted_prefix(pc_engine* engine, const char* name, uint64_t salt) PC_NOEXCEPT;

/* ---- Requests ---- */

/* `options` are of kind PC_OPTIONS_SAMPLING, PC_OPTIONS_BEAM_SEARCH or PC_OPTIONS_EMBEDDING, or null: sampling with the
 * defaults. With max_tokens 0 and prompt_logprobs 0 the prompt is scored. The request's id is written to *request. */
PAGEDCORE_API pc_status pc_engine_submit(pc_engine* engine, const int32_t* prompt, size_t prompt_length,
                                         const pc_options* options, uint64_t* request) PC_NOEXCEPT;
/* The checks of pc_engine_submit() alone: nothing is submitted. */
PAGEDCORE_API pc_status pc_engine_validate(const pc_engine* engine, const int32_t* prompt, size_t prompt_length,
                                           const pc_options* options) PC_NOEXCEPT;
/* One of several, as pc_engine_submit() takes it. */
typedef struct pc_request {
  const int32_t* prompt;
  size_t prompt_length;
  const pc_options* options;
} pc_request;
/* Checks `count` requests, then submits all; when one is refused, none is, and the message says which ("request 3:
 * ..."). They arrive at one time, in this order, and their outputs go to `queue`: 0 is the engine's own. Their ids are
 * written to ids[0] ... ids[count - 1]. `requests` and `ids` may be null when count is 0. */
PAGEDCORE_API pc_status pc_engine_submit_all(pc_engine* engine, uint64_t queue, const pc_request* requests,
                                             size_t count, uint64_t* ids) PC_NOEXCEPT;
/* Ends a request; its last output says PC_FINISH_ABORT. Unknown and finished requests are ignored. */
PAGEDCORE_API pc_status pc_engine_abort(pc_engine* engine, uint64_t request) PC_NOEXCEPT;
/* The same by its option request_id. */
PAGEDCORE_API pc_status pc_engine_abort_named(pc_engine* engine, const char* request_id) PC_NOEXCEPT;
/* The engine's clock, on which outputs say their times: seconds since it was made, steady. */
PAGEDCORE_API pc_status pc_engine_now(const pc_engine* engine, double* seconds) PC_NOEXCEPT;
/* Refuses requests (PC_ABORTED) from now on and waits until those that are there have ended, at most `timeout` seconds;
 * *left is how many have not, which go on. pc_engine_resume() ends it. */
PAGEDCORE_API pc_status pc_engine_drain(pc_engine* engine, double timeout, size_t* left) PC_NOEXCEPT;
/* Returns when no step is under way. None begins until pc_engine_resume(): requests wait, aborts and deadlines end
 * them. */
PAGEDCORE_API pc_status pc_engine_pause(pc_engine* engine) PC_NOEXCEPT;
/* Undoes pc_engine_pause() and pc_engine_drain(). */
PAGEDCORE_API pc_status pc_engine_resume(pc_engine* engine) PC_NOEXCEPT;
/* *busy is 1 while a submitted request has not delivered its last output. */
PAGEDCORE_API pc_status pc_engine_busy(const pc_engine* engine, int32_t* busy) PC_NOEXCEPT;

/* ---- Outputs ---- */

typedef enum pc_finish {
  PC_FINISH_NONE = 0,
  PC_FINISH_STOP = 1,   /* one of stop_token_ids */
  PC_FINISH_LENGTH = 2, /* max_tokens, or the end of the context */
  PC_FINISH_ABORT = 3,
  PC_FINISH_ERROR = 4,   /* this request failed, see pc_output.error; others are not affected */
  PC_FINISH_DEADLINE = 5 /* its deadline is over */
} pc_finish;

typedef struct pc_token_logprob {
  int32_t token;
  float logprob;
  int32_t rank; /* 1 is the most likely */
} pc_token_logprob;

typedef struct pc_position_logprobs {
  pc_token_logprob chosen;
  const pc_token_logprob* top; /* most likely first */
  size_t num_top;
} pc_position_logprobs;

/* News of one sample, or of one hypothesis of a beam search. */
typedef struct pc_output {
  size_t struct_size; /* of the library's pc_output: fields beyond it are not there */
  uint64_t request;
  uint32_t sample;        /* of a beam search: the place of the hypothesis, 0 is the best */
  uint32_t cached_tokens; /* prompt tokens taken from the prefix cache */
  const int32_t* tokens;  /* with stream those since the last news of this sample, else all */
  size_t num_tokens;
  const pc_position_logprobs* logprobs; /* one per token, when asked for */
  size_t num_logprobs;
  const pc_position_logprobs* prompt_logprobs; /* one per prompt token but the first; with the first news of sample 0 */
  size_t num_prompt_logprobs;
  const char* error; /* never null; empty unless finish is PC_FINISH_ERROR */
  double time;       /* seconds on the engine's clock */
  pc_finish finish;  /* PC_FINISH_NONE: more will come for this sample */
  int32_t last;      /* 1: nothing more will come for this request */
  float score;       /* of a hypothesis: its normalised sum of log-probabilities */
  /* Seconds on the engine's clock; 0: not yet. */
  double queued_time;      /* when it was submitted */
  double scheduled_time;   /* when the first step that computes something of it began */
  double prefilled_time;   /* when its whole prompt had been computed */
  double first_token_time; /* of the sample */
  double last_token_time;
} pc_output;

typedef struct pc_outputs pc_outputs; /* opaque: a batch of news */

/* All news that is ready, waiting at most `timeout` seconds for the first; an empty batch on time-out. Poll with 0.
 * News that nobody has taken when the next of its sample comes is joined to that. */
PAGEDCORE_API pc_status pc_engine_wait(pc_engine* engine, double timeout, pc_outputs** outputs) PC_NOEXCEPT;
/* A descriptor for poll(), epoll or an event loop: readable while pc_engine_wait() would not sleep, that is, while news
 * waits or the engine is closed or has failed. pc_engine_wait() makes it unreadable; nobody else is to read, write or
 * close it. It lives as long as the engine. */
PAGEDCORE_API pc_status pc_engine_output_fd(pc_engine* engine, int* fd) PC_NOEXCEPT;
PAGEDCORE_API size_t pc_outputs_count(const pc_outputs* outputs) PC_NOEXCEPT;
/* The i-th, in the order in which it happened; null when `index` is out of range. Valid until pc_outputs_free(). */
PAGEDCORE_API const pc_output* pc_outputs_get(const pc_outputs* outputs, size_t index) PC_NOEXCEPT;
/* The embedding that an output brings, which then finishes with PC_FINISH_LENGTH: *dimensions numbers, 0 where it
 * brings none. Valid until pc_outputs_free(). PC_INVALID_ARGUMENT when `index` is out of range. */
PAGEDCORE_API pc_status pc_outputs_embedding(const pc_outputs* outputs, size_t index, const float** numbers,
                                             size_t* dimensions) PC_NOEXCEPT;
/* Null is allowed. */
PAGEDCORE_API void pc_outputs_free(pc_outputs* outputs) PC_NOEXCEPT;

/* ---- Queues, and being called ----
 *
 * A queue is a place for outputs beside the engine's own, for parts of a program that take theirs apart from all
 * others'. Requests come to it by pc_engine_submit_all(). Number 0 is the engine's own. */

PAGEDCORE_API pc_status pc_engine_open_queue(pc_engine* engine, uint64_t* queue) PC_NOEXCEPT;
/* Drops what is in it and ends the requests whose outputs would come there. Queue 0 and unknown ones are left alone. */
PAGEDCORE_API pc_status pc_engine_close_queue(pc_engine* engine, uint64_t queue) PC_NOEXCEPT;
/* As pc_engine_wait() and pc_engine_output_fd(). PC_INVALID_ARGUMENT for a queue that there is not. */
PAGEDCORE_API pc_status pc_engine_wait_queue(pc_engine* engine, uint64_t queue, double timeout,
                                             pc_outputs** outputs) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_engine_queue_fd(pc_engine* engine, uint64_t queue, int* fd) PC_NOEXCEPT;
typedef void (*pc_callback)(void* data);
/* Calls callback(data) on the engine's thread after each step that brought outputs to the queue, once for all of them,
 * and when the engine is closed or fails; if outputs wait already, also at once, on this thread. It must neither block
 * nor throw nor jump out, and may call every function here with a timeout of 0, but neither this nor
 * pc_engine_close() and pc_engine_free(). A null callback ends it: when this returns, the callback before is not
 * running and will not be called again. */
PAGEDCORE_API pc_status pc_engine_on_output(pc_engine* engine, uint64_t queue, pc_callback callback,
                                            void* data) PC_NOEXCEPT;

/* ---- Snapshots ----
 *
 * A picture of the engine between two steps: where every block is, who holds which, what the latest steps did. Its
 * parts are reached by name; docs/c-and-cpp.md lists them. What is handed out belongs to the snapshot. */

typedef struct pc_snapshot pc_snapshot; /* opaque */

/* Waits for the end of the step that is under way. `limits` are of kind PC_OPTIONS_SNAPSHOT, or null: the defaults. */
PAGEDCORE_API pc_status pc_engine_snapshot(const pc_engine* engine, const pc_options* limits,
                                           pc_snapshot** snapshot) PC_NOEXCEPT;
/* The single values: time, num_blocks, block_size ... */
PAGEDCORE_API pc_status pc_snapshot_values(const pc_snapshot* snapshot, const pc_record** values) PC_NOEXCEPT;
/* A map of bytes, "cells" or "swap_cells"; a list of numbers, "entries"; a list of records, "requests", "tables" or
 * "steps". PC_INVALID_ARGUMENT for an unknown name, listing those that there are, and for an index out of range. */
PAGEDCORE_API pc_status pc_snapshot_bytes(const pc_snapshot* snapshot, const char* name, const uint8_t** bytes,
                                          size_t* count) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_snapshot_numbers(const pc_snapshot* snapshot, const char* name, const uint32_t** numbers,
                                            size_t* count) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_snapshot_count(const pc_snapshot* snapshot, const char* name, size_t* count) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_snapshot_record(const pc_snapshot* snapshot, const char* name, size_t index,
                                           const pc_record** record) PC_NOEXCEPT;
/* Null is allowed. */
PAGEDCORE_API void pc_snapshot_free(pc_snapshot* snapshot) PC_NOEXCEPT;

/* ---- Cache events ---- */

/* News of the prefix cache since the last call, for those who route requests to where their prefix is. */
typedef enum pc_cache_event_kind {
  PC_CACHE_STORED = 0,  /* a block can be found */
  PC_CACHE_REMOVED = 1, /* and no more, nor can what continues it */
  PC_CACHE_CLEARED = 2  /* nothing that was stored before can be found: forget all */
} pc_cache_event_kind;
typedef struct pc_cache_event {
  size_t struct_size;
  pc_cache_event_kind kind;
  uint64_t id;     /* of one publication; never used again */
  uint64_t parent; /* stored: the id of the block before; 0 at the beginning of a prompt */
  uint64_t salt;   /* stored, at the beginning of a prompt */
  const int32_t* tokens;
  size_t num_tokens;
} pc_cache_event;
typedef struct pc_cache_events pc_cache_events; /* opaque */

/* Needs the engine's option cache_events. */
PAGEDCORE_API pc_status pc_engine_cache_events(pc_engine* engine, pc_cache_events** events) PC_NOEXCEPT;
/* The same, waiting at most `timeout` seconds for the first; none on time-out. */
PAGEDCORE_API pc_status pc_engine_wait_cache_events(pc_engine* engine, double timeout,
                                                    pc_cache_events** events) PC_NOEXCEPT;
PAGEDCORE_API size_t pc_cache_events_count(const pc_cache_events* events) PC_NOEXCEPT;
PAGEDCORE_API const pc_cache_event* pc_cache_events_get(const pc_cache_events* events, size_t index) PC_NOEXCEPT;
/* Null is allowed. */
PAGEDCORE_API void pc_cache_events_free(pc_cache_events* events) PC_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* PAGEDCORE_PAGEDCORE_H */
