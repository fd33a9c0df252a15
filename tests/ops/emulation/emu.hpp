// Runs CUDA source on a CPU: every thread of a block is a fiber that yields at barriers and
// shuffles, so a missing barrier shows as a wrong or order-dependent result.
#pragma once
#include <ucontext.h>

#include <math.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define APE_EMULATED 1
#define APE_UNROLL
#define APE_ROLLED
#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(...)

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace emu {

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  bool done = false;
  int waits = 0;       // 0: runs; 1: at a warp's barrier; 2: at the block's
  uint32_t sent = 0, got = 0;
};

struct State {
  std::vector<Fiber> fibers;
  ucontext_t main;
  int current = 0;
  Dim3 block_index, block_dim, grid_dim;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
} state;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emu: %s in block (%u,%u,%u) thread %d\n", what, state.block_index.x,
               state.block_index.y, state.block_index.z, state.current);
  std::abort();
}

inline void wait(int kind) {
  Fiber& fiber = state.fibers[state.current];
  fiber.waits = kind;
  swapcontext(&fiber.context, &state.main);
}

inline void entry() {
  state.body(state.argument);
  state.fibers[state.current].done = true;
  swapcontext(&state.fibers[state.current].context, &state.main);
}

// Lets a warp (or the block) go on when all of its threads wait at the same kind of barrier.
inline bool release() {
  const int count = int(state.fibers.size());
  bool any = false;
  for (int warp = 0; warp < count; warp += 32) {
    int waiting = 0, ended = 0;
    const int end = warp + 32 < count ? warp + 32 : count;
    for (int i = warp; i < end; ++i) {
      waiting += state.fibers[i].waits == 1;
      ended += state.fibers[i].done;
    }
    if (waiting && waiting == end - warp) {
      for (int i = warp; i < end; ++i) state.fibers[i].waits = 0;
      any = true;
    } else if (waiting && ended) {
      state.current = warp;
      fail("a warp's barrier that an exited thread never reaches");
    }
  }
  if (any) return true;
  for (const Fiber& fiber : state.fibers)
    if (fiber.waits != 2) return false;
  for (Fiber& fiber : state.fibers) fiber.waits = 0;
  return true;
}

inline void run_block(int schedule, uint32_t seed) {
  const int count = int(state.block_dim.x);
  state.fibers.clear();
  state.fibers.resize(count);
  for (Fiber& fiber : state.fibers) {
    fiber.stack.resize(256 * 1024);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &state.main;
    makecontext(&fiber.context, entry, 0);
  }
  std::vector<int> order(count);
  for (int i = 0; i < count; ++i) order[i] = schedule == 1 ? count - 1 - i : i;
  for (;;) {
    if (schedule == 2)
      for (int i = count - 1; i > 0; --i) {
        seed = seed * 1664525u + 1013904223u;
        std::swap(order[i], order[seed % unsigned(i + 1)]);
      }
    int ended = 0;
    for (int i : order) {
      Fiber& fiber = state.fibers[i];
      if (!fiber.done && fiber.waits == 0) {
        state.current = i;
        swapcontext(&state.main, &fiber.context);
      }
      ended += fiber.done;
    }
    if (ended == count) return;
    bool running = false;
    for (const Fiber& fiber : state.fibers) running |= !fiber.done && fiber.waits == 0;
    if (!running && !release()) fail("a barrier that not every thread reaches");
  }
}

template <class Arguments>
void launch(void (*kernel)(Arguments), const void* arguments, const unsigned* grid, unsigned threads,
            int schedule) {
  struct Call {
    void (*kernel)(Arguments);
    const Arguments* arguments;
  } call{kernel, static_cast<const Arguments*>(arguments)};
  state.body = [](void* p) { static_cast<Call*>(p)->kernel(*static_cast<Call*>(p)->arguments); };
  state.argument = &call;
  state.grid_dim = {grid[0], grid[1], grid[2]};
  state.block_dim = {threads, 1, 1};
  for (unsigned z = 0; z < grid[2]; ++z)
    for (unsigned y = 0; y < grid[1]; ++y)
      for (unsigned x = 0; x < grid[0]; ++x) {
        state.block_index = {x, y, z};
        run_block(schedule, x * 7919u + y * 104729u + z + 1u);
      }
}

inline Dim3 thread_index() { return {unsigned(state.current), 0, 0}; }

}  // namespace emu

#define threadIdx (emu::thread_index())
#define blockIdx (emu::state.block_index)
#define blockDim (emu::state.block_dim)
#define gridDim (emu::state.grid_dim)

inline void __syncwarp(unsigned = ~0u) { emu::wait(1); }
inline void __syncthreads() { emu::wait(2); }

inline uint32_t exchange(unsigned mask, uint32_t mine, int from_lane) {
  if (mask != ~0u) emu::fail("a mask that leaves lanes out");
  const int self = emu::state.current, warp = self / 32 * 32;
  emu::state.fibers[self].sent = mine;
  emu::wait(1);
  const uint32_t got = emu::state.fibers[warp + from_lane].sent;
  emu::wait(1);
  return got;
}
inline float __shfl_xor_sync(unsigned mask, float value, int lanes) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = exchange(mask, bits, (emu::state.current % 32) ^ lanes);
  std::memcpy(&value, &bits, 4);
  return value;
}
inline unsigned __ballot_sync(unsigned mask, bool set) {
  if (mask != ~0u) emu::fail("a mask that leaves lanes out");
  const int warp = emu::state.current / 32 * 32;
  emu::state.fibers[emu::state.current].sent = set;
  emu::wait(1);
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= unsigned(emu::state.fibers[warp + i].sent != 0) << i;
  emu::wait(1);
  return bits;
}

__attribute__((noinline)) inline float __fmul_rn(float a, float b) { return a * b; }
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float half_bits_to_float(unsigned short bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float sign = bits & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(float(fraction), -24);
  return sign * std::ldexp(float(fraction + 1024), exponent - 25);
}
inline unsigned short float_to_half_bits(float x) {
  const unsigned short sign = std::signbit(x) ? 0x8000 : 0;
  const float size = std::fabs(x);
  if (x != x) return 0x7fff;
  if (size == 0.0f) return sign;  // frexp gives it no exponent
  if (size >= 65520.0f) return sign | 0x7c00;
  int exponent;
  std::frexp(size, &exponent);
  if (exponent < -13) exponent = -13;
  const long scaled = std::lrint(std::ldexp(size, 11 - exponent));  // to nearest, ties to even
  return sign + (unsigned short)(scaled + (long(exponent + 13) << 10));
}
inline float exp2_fast(float x) { return std::exp2(x); }

struct Quad;
inline void aligned(const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % 16) emu::fail("a 16-byte access that is not aligned");
}
template <class Q = Quad> inline Q load_quad_at(const void* from) {
  aligned(from);
  Q quad;
  std::memcpy(&quad, from, 16);
  return quad;
}
#define load_quad(from) load_quad_at<Quad>(from)
template <class Q> inline void store_quad(void* to, const Q& quad) {
  aligned(to);
  std::memcpy(to, &quad, 16);
}
inline void add_quad(float* to, float a, float b, float c, float d) {
  aligned(to);
  to[0] += a;
  to[1] += b;
  to[2] += c;
  to[3] += d;
}
