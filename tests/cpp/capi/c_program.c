/* Compiled as C99: what a C program does with the library. Returns 0, or the line of the first check that failed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pagedcore/pagedcore.h"

#define CHECK(condition)                                                                    \
  do {                                                                                      \
    if (!(condition)) {                                                                     \
      fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, pc_last_error()); \
      return __LINE__;                                                                      \
    }                                                                                       \
  } while (0)

int c_program(const char* container_path);

int c_program(const char* container_path) {
  pc_engine_params params = pc_engine_params_default();
  pc_sampling_params sampling = pc_sampling_params_default();
  pc_memory_plan plan, planned;
  pc_engine* engine = NULL;
  pc_outputs* outputs = NULL;
  const int32_t prompt[4] = {1, 2, 3, 4};
  uint64_t streamed = 0, aborted = 0;
  size_t tokens = 0;
  int lasts = 0;
  int32_t busy = 1, vocab_size = 0;
  double value = -1.0;

  CHECK(strlen(pc_version()) >= 5);
  CHECK(strcmp(pc_status_name(PC_OK), "PC_OK") == 0);
  CHECK(strcmp(params.device, "cpu") == 0 && strcmp(params.dtype, "bf16") == 0);
  CHECK(strcmp(params.order, "fcfs") == 0 && strcmp(params.admission, "known") == 0);
  CHECK(strcmp(params.victim, "cheapest") == 0);
  params.num_blocks = 64;
  params.threads = 2;
  params.device = "cpu";
  params.order = "priority";
  params.admission = "adaptive";
  params.victim = "last_arrival";
  CHECK(pc_plan_memory(container_path, &params, &planned) == PC_OK);
  CHECK(pc_engine_open(container_path, &params, &engine) == PC_OK);
  CHECK(pc_engine_memory_plan(engine, &plan) == PC_OK);
  CHECK(plan.weights == planned.weights && plan.activations == planned.activations);
  CHECK(plan.kv_block == planned.kv_block && plan.kv_cache == planned.kv_cache && plan.total == planned.total);
  CHECK(plan.kv_tokens == planned.kv_tokens && plan.num_blocks == planned.num_blocks);
  CHECK(plan.block_size == planned.block_size && plan.max_context == planned.max_context);
  CHECK(plan.num_blocks == 64 && plan.kv_tokens == 64 * 16 && plan.total > plan.kv_cache);
  CHECK(pc_engine_vocab_size(engine, &vocab_size) == PC_OK && vocab_size == 151);

  sampling.stream = 1;
  sampling.max_tokens = 10;
  sampling.logprobs = 1;
  sampling.priority = 5;
  sampling.tenant = 7;
  CHECK(pc_engine_submit(engine, prompt, 4, &sampling, &streamed) == PC_OK);
  sampling.stream = 0;
  sampling.max_tokens = 200;
  CHECK(pc_engine_submit(engine, prompt, 4, &sampling, &aborted) == PC_OK);
  CHECK(aborted != streamed);
  CHECK(pc_engine_abort(engine, aborted) == PC_OK);
  while (busy) {
    size_t i;
    CHECK(pc_engine_wait(engine, 1.0, &outputs) == PC_OK);
    for (i = 0; i < pc_outputs_count(outputs); ++i) {
      const pc_output* o = pc_outputs_get(outputs, i);
      CHECK(strlen(o->error) == 0);
      lasts += o->last;
      if (o->request == aborted) {
        CHECK(o->finish == PC_FINISH_ABORT || o->finish == PC_FINISH_LENGTH);
        continue;
      }
      CHECK(o->num_tokens == 1 && o->num_logprobs == 1);
      CHECK(o->tokens[0] == o->logprobs[0].chosen.token);
      CHECK(o->logprobs[0].num_top == 1 && o->logprobs[0].top[0].logprob <= 0.0f);
      CHECK(o->finish == (tokens == 9 ? PC_FINISH_LENGTH : PC_FINISH_NONE));
      tokens += o->num_tokens;
    }
    CHECK(pc_outputs_get(outputs, pc_outputs_count(outputs)) == NULL);
    pc_outputs_free(outputs);
    CHECK(pc_engine_busy(engine, &busy) == PC_OK);
  }
  CHECK(tokens == 10 && lasts == 2);
  CHECK(pc_engine_stat(engine, "blocks_total", &value) == PC_OK && value == 64.0);
  CHECK(pc_engine_stat(engine, "blocks_used", &value) == PC_OK && value == 0.0);
  CHECK(pc_engine_clear_prefix_cache(engine) == PC_OK);
  CHECK(pc_engine_close(engine) == PC_OK);
  CHECK(pc_engine_wait(engine, 0.0, &outputs) == PC_ABORTED);
  CHECK(strlen(pc_last_error()) > 0);
  pc_engine_free(engine);
  return 0;
}
