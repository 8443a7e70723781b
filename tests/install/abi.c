/* Linked once, run against several versions: abi VERSION OPTION. OPTION is one that this program was compiled without;
 * empty: the library has none. */
#include <stdio.h>
#include <string.h>

#include "pagedcore/pagedcore.h"

static int fail(const char* what) {
  fprintf(stderr, "failed: %s (last error: %s)\n", what, pc_last_error());
  return 1;
}

int main(int argc, char** argv) {
  pc_options* options = NULL;
  pc_options* request = NULL;
  pc_engine* engine = NULL;
  size_t count = 0, i;
  int known = 0;
  if (argc != 3) return 2;
  if (strcmp(pc_version(), argv[1]) != 0) return fail("another version was loaded than the one that is meant");
  if (pc_options_new(PC_OPTIONS_ENGINE, &options) != PC_OK) return fail("options are made");
  if (pc_options_set(options, "swap_space", "1GiB") != PC_OK) return fail("an option is set");
  if (pc_options_count(options, &count) != PC_OK) return fail("options are counted");
  for (i = 0; i < count; ++i) {
    pc_option_info info;
    info.struct_size = sizeof info;
    if (pc_options_describe(options, i, &info) != PC_OK) return fail("an option is described");
    known += strcmp(info.name, argv[2]) == 0;
  }
  if (known != (argv[2][0] != 0)) return fail("the library has the option that it should");
  if (known && pc_options_set(options, argv[2], "9") != PC_OK) return fail("the option of a later version is set");
  if (pc_options_new(PC_OPTIONS_SAMPLING, &request) != PC_OK) return fail("options of a request are made");
  if (pc_options_set(request, "temperature", "0.5") != PC_OK) return fail("a parameter is set");
  if (pc_engine_open("no/such/file", options, &engine) != PC_IO) return fail("a missing file is PC_IO");
  pc_options_free(options);
  pc_options_free(request);
  printf("version %s, %lu options\n", pc_version(), (unsigned long)count);
  return 0;
}
