/* The C ABI of pagedcore: open a model container, submit token ids, collect tokens.
 *
 * Errors.    A function that can fail returns a pc_status, PC_OK being 0, and writes its results only on PC_OK.
 *            pc_last_error() then says what happened, with the value, the limit and the remedy. No C++ exception
 * crosses. Ownership. What a function hands out through a pointer to a pointer belongs to the caller, who gives it to
 * the matching pc_..._free(). Everything passed in is copied before the call returns. Strings and arrays inside a
 *            pc_output belong to its pc_outputs.
 * Threads.   All functions of an engine may be called from any thread at the same time, but pc_engine_free() must be
 *            the last. A pc_outputs is read-only once it is handed out.
 * fork().    In a child every call on an engine of the parent fails with PC_ABORTED; nothing hangs.
 *
 * C99 and later, C++. Get parameter structures from the matching ..._default() and change what you need. They begin
 * with their size, so that a program compiled against another version's header is refused rather than misread.
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
  PC_INTERNAL = 7          /* anything else: please report it */
} pc_status;

/* The name of a status, such as "PC_OK". Never null. */
PAGEDCORE_API const char* pc_status_name(pc_status status) PC_NOEXCEPT;
/* Message of the last failed call on this thread; empty when there was none. Valid until the next failure on this
 * thread. */
PAGEDCORE_API const char* pc_last_error(void) PC_NOEXCEPT;
/* "major.minor.patch" of the library that is loaded. */
PAGEDCORE_API const char* pc_version(void) PC_NOEXCEPT;

/* ---- Engine ---- */

typedef struct pc_engine pc_engine; /* opaque */

typedef struct pc_engine_params {
  size_t struct_size;
  uint32_t block_size;           /* tokens per block of KV cache */
  uint32_t num_blocks;           /* 0: from kv_cache_bytes */
  uint64_t kv_cache_bytes;       /* with num_blocks 0; both 0: what the model can use, within limits */
  uint32_t max_batched_tokens;   /* rows of one step */
  uint32_t max_sequences;        /* sequences of one step */
  uint32_t max_context;          /* 0: the model's */
  int32_t threads;               /* 0: the number of CPUs that this process may run on */
  double watermark;              /* share of the blocks that an admission leaves free */
  const char* dtype;             /* compute type: on cpu "bf16" or "f32", on cuda "bf16" or "f16" */
  const char* isa;               /* "auto", or one instruction set, for comparisons */
  int32_t enable_prefix_caching; /* 0 or 1 */
  const char* device;            /* "cpu", "cuda" or "cuda:<index>" */
  /* Scheduling policies; the meanings are those of ServiceOrder, AdmissionPolicy and VictimPolicy in scheduler.hpp. */
  const char* order;     /* "fcfs", "priority" or "fair" */
  const char* admission; /* "known", "watermark", "never_evict" or "adaptive" */
  const char* victim;    /* "cheapest" or "last_arrival" */
} pc_engine_params;

/* A string that is null means the default too. */
PAGEDCORE_API pc_engine_params pc_engine_params_default(void) PC_NOEXCEPT;

/* Every byte an engine will hold. */
typedef struct pc_memory_plan {
  uint64_t weights;     /* bytes, packed */
  uint64_t activations; /* bytes */
  uint64_t kv_block;    /* bytes of one block */
  uint64_t kv_cache;    /* bytes of all blocks */
  uint64_t total;       /* bytes */
  uint64_t kv_tokens;   /* tokens that all blocks hold */
  uint32_t num_blocks;
  uint32_t block_size;
  uint32_t max_context; /* tokens of one sequence */
} pc_memory_plan;

/* The plan for a container, computed without loading it. `params` may be null: the defaults. */
PAGEDCORE_API pc_status pc_plan_memory(const char* container_path, const pc_engine_params* params,
                                       pc_memory_plan* plan) PC_NOEXCEPT;

/* Loads a container and starts an engine, to be given to pc_engine_free(). `params` may be null: the defaults. */
PAGEDCORE_API pc_status pc_engine_open(const char* container_path, const pc_engine_params* params,
                                       pc_engine** engine) PC_NOEXCEPT;
/* Ends all requests, stops the threads, returns the memory. Calls on the engine fail with PC_ABORTED from then on. May
   be called repeatedly, from any thread. */
PAGEDCORE_API pc_status pc_engine_close(pc_engine* engine) PC_NOEXCEPT;
/* Closes and destroys. Null is allowed. */
PAGEDCORE_API void pc_engine_free(pc_engine* engine) PC_NOEXCEPT;

PAGEDCORE_API pc_status pc_engine_memory_plan(const pc_engine* engine, pc_memory_plan* plan) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_engine_vocab_size(const pc_engine* engine, int32_t* vocab_size) PC_NOEXCEPT;
/* One counter by its name; docs/stats.md lists them. PC_INVALID_ARGUMENT for an unknown name, listing those known. */
PAGEDCORE_API pc_status pc_engine_stat(const pc_engine* engine, const char* key, double* value) PC_NOEXCEPT;
PAGEDCORE_API pc_status pc_engine_clear_prefix_cache(pc_engine* engine) PC_NOEXCEPT;

/* ---- Requests ---- */

typedef struct pc_token_bias {
  int32_t token;
  float bias; /* added to the logit; -INFINITY bans the token */
} pc_token_bias;

/* How the tokens of a request are chosen; the meanings and limits are those of SamplingParams in sampling.hpp. */
typedef struct pc_sampling_params {
  size_t struct_size;
  uint32_t n;          /* independent samples */
  uint32_t max_tokens; /* per sample; 0 only scores the prompt */
  uint32_t min_tokens;
  float temperature; /* 0 is greedy */
  int32_t top_k;     /* 0: off */
  float top_p;       /* 1: off */
  float min_p;       /* 0: off */
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  int32_t logprobs;        /* -1: off; else this many most likely tokens beside the chosen one */
  int32_t prompt_logprobs; /* likewise, for the prompt */
  uint64_t seed;
  uint64_t salt;  /* requests with different salts never share cached prefixes */
  int32_t stream; /* 1: news of every token; 0: each sample once, when it ends */
  const pc_token_bias* logit_bias;
  size_t num_logit_bias;
  const int32_t* banned_tokens;
  size_t num_banned_tokens;
  const int32_t* allowed_tokens; /* none: all */
  size_t num_allowed_tokens;
  const int32_t* stop_token_ids;
  size_t num_stop_token_ids;
  int32_t priority; /* higher goes first, with order "priority"; -1000000 to 1000000 */
  uint64_t tenant;  /* who is served by the request, with order "fair" */
} pc_sampling_params;

PAGEDCORE_API pc_sampling_params pc_sampling_params_default(void) PC_NOEXCEPT;

/* `params` may be null: the defaults. The request's id is written to *request. */
PAGEDCORE_API pc_status pc_engine_submit(pc_engine* engine, const int32_t* prompt, size_t prompt_length,
                                         const pc_sampling_params* params, uint64_t* request) PC_NOEXCEPT;
/* Ends a request; its last output says PC_FINISH_ABORT. Unknown and finished requests are ignored. */
PAGEDCORE_API pc_status pc_engine_abort(pc_engine* engine, uint64_t request) PC_NOEXCEPT;
/* *busy is 1 while a submitted request has not delivered its last output. */
PAGEDCORE_API pc_status pc_engine_busy(const pc_engine* engine, int32_t* busy) PC_NOEXCEPT;

/* ---- Outputs ---- */

typedef enum pc_finish {
  PC_FINISH_NONE = 0,
  PC_FINISH_STOP = 1,   /* one of stop_token_ids */
  PC_FINISH_LENGTH = 2, /* max_tokens, or the end of the context */
  PC_FINISH_ABORT = 3,
  PC_FINISH_ERROR = 4 /* this request failed, see pc_output.error; others are not affected */
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

/* News of one sample. */
typedef struct pc_output {
  uint64_t request;
  uint32_t sample;
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
} pc_output;

typedef struct pc_outputs pc_outputs; /* opaque: a batch of news */

/* All news that is ready, waiting at most `timeout` seconds for the first; an empty batch on time-out. Poll with 0. */
PAGEDCORE_API pc_status pc_engine_wait(pc_engine* engine, double timeout, pc_outputs** outputs) PC_NOEXCEPT;
PAGEDCORE_API size_t pc_outputs_count(const pc_outputs* outputs) PC_NOEXCEPT;
/* The i-th, in the order in which it happened; null when `index` is out of range. Valid until pc_outputs_free(). */
PAGEDCORE_API const pc_output* pc_outputs_get(const pc_outputs* outputs, size_t index) PC_NOEXCEPT;
/* Null is allowed. */
PAGEDCORE_API void pc_outputs_free(pc_outputs* outputs) PC_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* PAGEDCORE_PAGEDCORE_H */
