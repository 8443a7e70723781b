// A CUDA plugin from when its table was another one.
extern "C" __attribute__((visibility("default"))) const void* pagedcore_cuda_plugin_v1() { return nullptr; }
