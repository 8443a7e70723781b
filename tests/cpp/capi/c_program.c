/* Compiled as C99: what a C program does with the library. Returns 0, or the line of the first check that failed. */
#include <math.h>
#include <poll.h>
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

static int readable(int fd, int milliseconds) {
  struct pollfd entry;
  entry.fd = fd;
  entry.events = POLLIN;
  return poll(&entry, 1, milliseconds) == 1;
}

static int number_is(const pc_record* record, const char* name, double expected) {
  double value = -1.0;
  return pc_record_number(record, name, &value) == PC_OK && value == expected;
}

int c_program(const char* container_path) {
  static const char* const same[] = {"weights",   "activations", "kv_block",   "kv_cache",   "total",
                                     "kv_tokens", "num_blocks",  "block_size", "max_context"};
  pc_options *config = NULL, *sampling = NULL;
  pc_record *plan = NULL, *planned = NULL, *model = NULL, *stats = NULL;
  pc_engine* engine = NULL;
  pc_outputs* outputs = NULL;
  const int32_t prompt[4] = {1, 2, 3, 4};
  uint64_t streamed = 0, aborted = 0;
  double now = 0.0;
  size_t tokens = 0, left = 1, k;
  int lasts = 0, fd = -1;
  int32_t busy = 1;

  CHECK(strlen(pc_version()) >= 5);
  CHECK(strcmp(pc_status_name(PC_OK), "PC_OK") == 0);
  CHECK(pc_options_new(PC_OPTIONS_ENGINE, &config) == PC_OK);
  CHECK(pc_options_set(config, "num_blocks", "64") == PC_OK);
  CHECK(pc_options_set_integer(config, "threads", 2) == PC_OK);
  CHECK(pc_options_set(config, "device", "cpu") == PC_OK);
  CHECK(pc_options_set(config, "order", "priority") == PC_OK);
  CHECK(pc_options_set(config, "admission", "adaptive") == PC_OK);
  CHECK(pc_options_set(config, "victim", "last_arrival") == PC_OK);
  CHECK(pc_options_set(config, "swap_space", "1MiB") == PC_OK);
  CHECK(pc_plan_memory(container_path, config, &planned) == PC_OK);
  CHECK(pc_engine_open(container_path, config, &engine) == PC_OK);
  CHECK(pc_engine_memory_plan(engine, &plan) == PC_OK);
  for (k = 0; k < sizeof same / sizeof *same; ++k) {
    double value = -1.0;
    CHECK(pc_record_number(plan, same[k], &value) == PC_OK && value > 0.0);
    CHECK(number_is(planned, same[k], value));
  }
  CHECK(number_is(plan, "num_blocks", 64) && number_is(plan, "kv_tokens", 64 * 16));
  CHECK(pc_engine_model(engine, &model) == PC_OK && number_is(model, "vocab_size", 151));

  CHECK(pc_options_new(PC_OPTIONS_SAMPLING, &sampling) == PC_OK);
  CHECK(pc_options_set(sampling, "stream", "1") == PC_OK);
  CHECK(pc_options_set(sampling, "max_tokens", "10") == PC_OK);
  CHECK(pc_options_set(sampling, "logprobs", "1") == PC_OK);
  CHECK(pc_options_set(sampling, "priority", "5") == PC_OK);
  CHECK(pc_options_set(sampling, "tenant", "7") == PC_OK);
  CHECK(pc_engine_submit(engine, prompt, 4, sampling, &streamed) == PC_OK);
  CHECK(pc_options_set(sampling, "stream", "0") == PC_OK);
  CHECK(pc_options_set(sampling, "max_tokens", "200") == PC_OK);
  CHECK(pc_engine_submit(engine, prompt, 4, sampling, &aborted) == PC_OK);
  CHECK(aborted != streamed);
  CHECK(pc_engine_abort(engine, aborted) == PC_OK);
  CHECK(pc_engine_output_fd(engine, &fd) == PC_OK);
  while (busy) {
    size_t i;
    CHECK(readable(fd, 60000));
    CHECK(pc_engine_wait(engine, 0.0, &outputs) == PC_OK);
    CHECK(pc_outputs_count(outputs) > 0);
    for (i = 0; i < pc_outputs_count(outputs); ++i) {
      const pc_output* o = pc_outputs_get(outputs, i);
      CHECK(strlen(o->error) == 0);
      lasts += o->last;
      if (o->request == aborted) {
        CHECK(o->finish == PC_FINISH_ABORT || o->finish == PC_FINISH_LENGTH);
        continue;
      }
      CHECK(o->num_tokens >= 1 && o->num_logprobs == o->num_tokens);
      CHECK(0.0 < o->queued_time && o->queued_time <= o->scheduled_time && o->scheduled_time < o->prefilled_time);
      CHECK(o->prefilled_time == o->first_token_time && o->first_token_time <= o->last_token_time);
      CHECK(o->tokens[0] == o->logprobs[0].chosen.token);
      CHECK(o->logprobs[0].num_top == 1 && o->logprobs[0].top[0].logprob <= 0.0f);
      tokens += o->num_tokens;
      CHECK(o->finish == (tokens == 10 ? PC_FINISH_LENGTH : PC_FINISH_NONE));
    }
    CHECK(pc_outputs_get(outputs, pc_outputs_count(outputs)) == NULL);
    pc_outputs_free(outputs);
    CHECK(pc_engine_busy(engine, &busy) == PC_OK);
  }
  CHECK(tokens == 10 && lasts == 2);
  CHECK(pc_engine_stats(engine, &stats) == PC_OK);
  CHECK(number_is(stats, "blocks_total", 64) && number_is(stats, "blocks_used", 0));
  CHECK(!readable(fd, 0));
  CHECK(pc_engine_pause(engine) == PC_OK);
  CHECK(pc_options_set(sampling, "deadline", "0.01") == PC_OK);
  CHECK(pc_options_set(sampling, "request_id", "one") == PC_OK);
  CHECK(pc_engine_submit(engine, prompt, 4, sampling, &aborted) == PC_OK);
  CHECK(pc_engine_submit(engine, prompt, 4, sampling, &streamed) == PC_INVALID_ARGUMENT); /* the name is in use */
  CHECK(pc_engine_drain(engine, 60.0, &left) == PC_OK && left == 0);                      /* its deadline ends it */
  CHECK(pc_engine_wait(engine, 0.0, &outputs) == PC_OK && pc_outputs_count(outputs) == 1);
  CHECK(pc_outputs_get(outputs, 0)->finish == PC_FINISH_DEADLINE && pc_outputs_get(outputs, 0)->scheduled_time == 0.0);
  CHECK(pc_engine_now(engine, &now) == PC_OK && now >= pc_outputs_get(outputs, 0)->time);
  CHECK(pc_outputs_get(outputs, 0)->time - pc_outputs_get(outputs, 0)->queued_time >= 0.01);
  pc_outputs_free(outputs);
  CHECK(pc_engine_submit(engine, prompt, 4, sampling, &streamed) == PC_ABORTED);
  CHECK(pc_engine_resume(engine) == PC_OK);
  CHECK(pc_engine_pause(engine) == PC_OK);
  CHECK(pc_options_set(sampling, "deadline", "none") == PC_OK);
  CHECK(pc_engine_submit(engine, prompt, 4, sampling, &aborted) == PC_OK); /* the name is free again */
  CHECK(pc_engine_abort_named(engine, "another") == PC_OK && pc_engine_abort_named(engine, "one") == PC_OK);
  CHECK(pc_engine_wait(engine, 60.0, &outputs) == PC_OK && pc_outputs_count(outputs) == 1);
  CHECK(pc_outputs_get(outputs, 0)->finish == PC_FINISH_ABORT && pc_outputs_get(outputs, 0)->request == aborted);
  pc_outputs_free(outputs);
  CHECK(pc_engine_resume(engine) == PC_OK);
  CHECK(strcmp(pc_status_name(PC_OVERLOADED), "PC_OVERLOADED") == 0);
  CHECK(pc_engine_clear_prefix_cache(engine) == PC_OK);
  CHECK(pc_engine_close(engine) == PC_OK);
  CHECK(pc_engine_wait(engine, 0.0, &outputs) == PC_ABORTED);
  CHECK(readable(fd, 0));
  CHECK(strlen(pc_last_error()) > 0);
  pc_engine_free(engine);
  pc_options_free(config);
  pc_options_free(sampling);
  pc_record_free(planned);
  pc_record_free(plan);
  pc_record_free(model);
  pc_record_free(stats);
  return 0;
}
