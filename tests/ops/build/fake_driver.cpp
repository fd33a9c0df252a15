// A CUDA driver that runs one emulated kernel on the CPU: what the launcher calls, and no more.
// LAUNCH names the library of the kernel; its `start` gets the structure that was passed by value.
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

using Start = void (*)(const void*, const unsigned*, unsigned, int);
static void* context = nullptr;
static char symbol[512];

extern "C" {
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuGetErrorString(int, const char** text) { return *text = "made by the test", 0; }
int cuDevicePrimaryCtxRetain(void** made, int device) {
  return *made = reinterpret_cast<void*>(0x100 + device), 0;
}
int cuCtxSetCurrent(void* made) { return context = made, 0; }
int cuModuleLoadData(void** module, const void* image) {
  if (std::memcmp(image, "\x7f" "ELF", 4)) return 200;  // CUDA_ERROR_INVALID_IMAGE
  return *module = const_cast<void*>(image), context ? 0 : 201;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  std::snprintf(symbol, sizeof symbol, "%s", name);
  return *function = module, 0;
}
int cuLaunchKernel(void*, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                   unsigned shared, void* stream, void** parameters, void** extra) {
  if (std::getenv("FAIL")) return 701;  // CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
  std::printf("%s context %p stream %p shared %u extra %p\n", symbol, context, stream, shared,
              static_cast<void*>(extra));
  std::fflush(stdout);
  void* library = dlopen(std::getenv("LAUNCH"), RTLD_NOW);
  if (!library) return 999;
  const unsigned grid[3] = {x, y, z};
  reinterpret_cast<Start>(dlsym(library, "start"))(parameters[0], grid, threads, 0);
  return 0;
}
int cuGetProcAddress_v2(const char* name, void** function, int, unsigned long long, int* found) {
  static void* self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  *function = dlsym(self, name);
  if (found) *found = *function ? 0 : 1;
  return *function ? 0 : 500;  // CUDA_ERROR_NOT_FOUND
}
}
