/* Generates from a model container, through the C ABI: generate CONTAINER TOKEN... */
#include <stdio.h>
#include <stdlib.h>

#include "pagedcore/pagedcore.h"

static int fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, pc_last_error());
  return 1;
}

/* Prints every token of the one open request as it comes. */
static int print_outputs(pc_engine* engine) {
  size_t count = 0;
  int32_t busy = 1;
  while (busy) {
    pc_outputs* outputs;
    size_t i, k;
    if (pc_engine_wait(engine, 1.0, &outputs) != PC_OK) return fail("wait");
    for (i = 0; i < pc_outputs_count(outputs); ++i) {
      const pc_output* output = pc_outputs_get(outputs, i);
      for (k = 0; k < output->num_tokens; ++k) printf("%d ", (int)output->tokens[k]);
      count += output->num_tokens;
      if (output->finish == PC_FINISH_ERROR) fprintf(stderr, "\n%s\n", output->error);
      if (output->last) {
        printf("\n%lu tokens, %s\n", (unsigned long)count, output->finish == PC_FINISH_LENGTH ? "length" : "stopped");
      }
    }
    pc_outputs_free(outputs);
    if (pc_engine_busy(engine, &busy) != PC_OK) return fail("busy");
  }
  return 0;
}

int main(int argc, char** argv) {
  pc_options* options = NULL;
  pc_engine* engine;
  int32_t* prompt;
  uint64_t request;
  int i, result;
  if (argc < 3) {
    fprintf(stderr, "usage: %s CONTAINER TOKEN...\n", argv[0]);
    return 2;
  }
  if (pc_engine_open(argv[1], NULL, &engine) != PC_OK) return fail("open");
  prompt = malloc((size_t)argc * sizeof *prompt);
  if (prompt == NULL) return 1;
  for (i = 2; i < argc; ++i) prompt[i - 2] = (int32_t)atoi(argv[i]);

  /* Options have names: docs/options.md lists them. */
  if (pc_options_new(PC_OPTIONS_SAMPLING, &options) == PC_OK && pc_options_set(options, "temperature", "0") == PC_OK &&
      pc_options_set(options, "max_tokens", "16") == PC_OK && pc_options_set(options, "stream", "true") == PC_OK &&
      pc_engine_submit(engine, prompt, (size_t)argc - 2, options, &request) == PC_OK) {
    result = print_outputs(engine);
  } else {
    result = fail("submit");
  }
  pc_options_free(options);
  free(prompt);
  pc_engine_free(engine);
  return result;
}
