// Writes a container with a small random model: tiny_container PATH
#include <cstdio>
#include <exception>

#include "../engine/tiny_model.hpp"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    const tiny::TinyModel model;
    pagedcore::save_model(argv[1], model.description, model.weights, {});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
