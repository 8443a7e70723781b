/* The C ABI from C: the version, and an error that arrives as a status with a message. */
#include <pagedcore/pagedcore.h>
#include <stdio.h>
#include <string.h>

static int failures = 0;

static void expect(int holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "failed: %s (last error: %s)\n", what, pc_last_error());
  ++failures;
}

int main(void) {
  expect(strcmp(pc_version(), EXPECTED_VERSION) == 0, "the loaded library has the expected version");

  pc_options* options = NULL;
  expect(pc_options_new(PC_OPTIONS_ENGINE, &options) == PC_OK, "options are made");

  pc_engine* engine = NULL;
  const pc_status status = pc_engine_open("no/such/file", options, &engine);
  expect(status == PC_IO && engine == NULL, "a missing file is PC_IO");
  expect(strstr(pc_last_error(), "no/such/file") != NULL, "the message names the file");

  expect(pc_options_set(options, "order", "lifo") == PC_INVALID_ARGUMENT, "an unknown policy is refused");
  expect(strstr(pc_last_error(), "fcfs, priority, fair") != NULL, "the message names those that there are");
  pc_options_free(options);
  return failures == 0 ? 0 : 1;
}
