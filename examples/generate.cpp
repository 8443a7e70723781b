// Generates from a model container: generate CONTAINER TOKEN...
//
// Prompts and outputs are token ids; a tokenizer is the caller's business. Build against an installed pagedcore with
//   find_package(pagedcore) and target_link_libraries(... pagedcore::pagedcore)
#include <cstdlib>
#include <exception>
#include <iostream>
#include <vector>

#include "pagedcore/engine.hpp"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: " << argv[0] << " CONTAINER TOKEN...\n";
    return 2;
  }
  try {
    const pagedcore::ModelFile file(argv[1]);
    pagedcore::Engine engine(file.description(), file, pagedcore::EngineConfig{});

    pagedcore::EngineRequest request;
    for (int i = 2; i < argc; ++i) request.prompt.push_back(std::atoi(argv[i]));
    request.sampling.temperature = 0.0f;
    request.sampling.max_tokens = 16;
    request.stream = true;  // every token as it comes
    engine.submit(request);

    std::size_t count = 0;
    while (engine.busy()) {
      for (const pagedcore::EngineOutput& output : engine.wait(1.0)) {
        for (const pagedcore::TokenId token : output.tokens) std::cout << token << ' ' << std::flush;
        count += output.tokens.size();
        if (output.finish == pagedcore::FinishReason::error) std::cerr << '\n' << output.error << '\n';
        if (output.last) {
          const bool full = output.finish == pagedcore::FinishReason::length;
          std::cout << '\n' << count << " tokens, " << (full ? "length" : "stopped") << '\n';
        }
      }
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
