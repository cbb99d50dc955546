// Runs the source of the scan for Hopper processors as ordinary C++: a fiber for each thread, in an order that changes.
//
// emulator FOLDER SEED: reads sizes and arrays from FOLDER, writes what three launches in a row give as y.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>
using std::max;
using std::min;

#ifdef HALF
typedef _Float16 T;
#else
typedef float T;
#endif
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct Gate {
  int opened;
  bool arrived;
  int bytes;
};
struct Map {
  const T* values;
};

#define EMULATED
#define DEVICE static inline
#define KERNEL static
#define MAP const Map
#define __restrict__
#define SHARED_MEMORY shared_memory[program]

struct Fiber {
  ucontext_t context;
  char* stack;
  bool done;
};
struct Barrier {
  int waiting = 0, round = 0;
};

static int thread, program, fiber, threads_, maps_, h_, w_;
static std::vector<Fiber> fibers;
static std::vector<char*> shared_memory;
static ucontext_t scheduler;
static std::vector<Barrier> of_program, of_warp, of_team;

static void pause_() { swapcontext(&fibers[fiber].context, &scheduler); }
static void meet(Barrier& barrier, int number) {
  const int round = barrier.round;
  if (++barrier.waiting == number) {
    barrier.waiting = 0;
    barrier.round++;
  }
  while (barrier.round == round) pause_();
}

static int thread_index() { return thread; }
static int program_index() { return program; }
static int thread_now() { return thread; }
static void sync_program() { meet(of_program[program], threads_); }
static void sync_warp() { meet(of_warp[program * 32 + thread / 32], 32); }
static void sync_team(int team, int warps) {
  if (warps == 1) sync_warp();
  else meet(of_team[program * 32 + team], warps * 32);
}
static void nap() { pause_(); }
static int again(int v) { return v; }

static float lane_values[1024][32][2][32];
static int lane_turns[1024][32][32];
static float of_lane(float v, int other) {
  const int warp = thread / 32, lane = thread % 32, turn = lane_turns[program][warp][lane]++ & 1;
  lane_values[program][warp][turn][lane] = v;
  sync_warp();
  return lane_values[program][warp][turn][other < 0 || other > 31 ? lane : other];
}
static float up(float v, int k) { return of_lane(v, thread % 32 - k); }
static float down(float v, int k) { return of_lane(v, thread % 32 + k); }
static float from(float v, int k) { return of_lane(v, k); }

static float exp2_(float x) { return exp2f(x); }
static float exp2_of_minus(float x) { return exp2f(-fabsf(x)); }
static int bits(float v) {
  int i;
  memcpy(&i, &v, 4);
  return i;
}
static float of_bits(int i) {
  float v;
  memcpy(&v, &i, 4);
  return v;
}
static float2 make_float2(float x, float y) { return {x, y}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static float number(T v) { return v; }
static void store(T* p, float v) { *p = v; }
static void copy_later(float* to, const float* source, bool inside) { *to = inside ? *source : 0.f; }
static void wait_for_copies() {}
static void make_gate(Gate* g) { *g = {0, false, 0}; }
static void open_(Gate* g) {
  if (!g->arrived || g->bytes) return;
  g->arrived = false;
  g->opened++;
}
static void arrive_before(Gate* g, int bytes) {
  g->bytes += bytes;
  g->arrived = true;
  open_(g);
}
static void wait_for_gate(Gate* g, int parity) {
  while ((g->opened & 1) == parity) pause_();
}
static void load_box(void* to, int bytes, const Map& map, int channel, int column, int row, int picture, Gate* g) {
  const int values = bytes / sizeof(T), channels = values / 32;  // of 32 tokens, four columns
  for (int i = 0; i < values; i++) {
    const int r = row + i / channels / 4, c = column + i / channels % 4, k = channel + i % channels;
    const bool inside = r < h_ && c < w_ && k < CHANNELS && picture < maps_;
    ((T*)to)[i] = inside ? map.values[(((long)picture * h_ + r) * w_ + c) * CHANNELS + k] : (T)0;
  }
  g->bytes -= bytes;
  open_(g);
}
static float peek(const float* p) { return *p; }
static int peek(const int* p) { return *p; }
static float4 peek4(const float2* p) { return {p[0].x, p[0].y, p[1].x, p[1].y}; }
static void post(float* p, float v) { *p = v; }
static void post2(float2* p, float2 v) { *p = v; }
static void post4(float* p, float4 v) { *(float4*)p = v; }
static int count(int* p) { return (*p)++; }

#include "resident.cu"

static std::string folder;
template <class V>
static std::vector<V> read(const char* name) {
  std::ifstream file(folder + "/" + name, std::ios::binary | std::ios::ate);
  std::vector<V> values(file.tellg() / sizeof(V));
  file.seekg(0);
  file.read((char*)values.data(), values.size() * sizeof(V));
  return values;
}

static std::vector<T> x, delta, y;
static std::vector<float> B, C, A, D, bias, lines;
static std::vector<float2> states;
static std::vector<int> counters, sizes;
static void entry() {
  scan(Map{x.data()}, Map{delta.data()}, (bias.empty() ? D : bias).data(), A.data(), B.data(), C.data(), D.data(), y.data(), lines.data(),
       states.data(), counters.data(), maps_, h_, w_, sizes[3], sizes[4], sizes[5], sizes[6]);
  fibers[fiber].done = true;
  pause_();
}

static void launch(int programs, unsigned seed) {
  const int n = programs * THREADS;
  for (char* memory : shared_memory) memset(memory, 0xff, sizeof(Shared));
  for (Fiber& f : fibers) {
    f.done = false;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = 32768;
    f.context.uc_link = &scheduler;
    makecontext(&f.context, entry, 0);
  }
  std::mt19937 random(seed);
  std::vector<int> order(n);
  for (int i = 0; i < n; i++) order[i] = i;
  std::vector<int> asleep(n / 32, 0);
  for (int left = n, turns = 0; left; turns++) {
    if (turns > 100000) {
      fprintf(stderr, "programs wait for each other forever\n");
      exit(1);
    }
    std::shuffle(order.begin(), order.end(), random);
    for (int& turns_left : asleep) {  // a warp may be far behind the others of its program
      if (turns_left) turns_left--;
      else if (random() % 64 == 0) turns_left = random() % 32;
    }
    for (int i : order) {
      if (fibers[i].done || asleep[i / 32]) continue;
      fiber = i;
      program = i / THREADS;
      thread = i % THREADS;
      swapcontext(&scheduler, &fibers[i].context);
      left -= fibers[i].done;
    }
  }
}

int main(int, char** arguments) {
  folder = arguments[1];
  sizes = read<int>("sizes");  // maps, h, w, sets, shared, places, team
  maps_ = sizes[0];
  h_ = sizes[1];
  w_ = sizes[2];
  x = read<T>("x");
  delta = read<T>("delta");
  A = read<float>("A"), B = read<float>("B"), C = read<float>("C"), D = read<float>("D"), bias = read<float>("bias");
  y.resize(x.size());
  const int tiles = (h_ + SIDE - 1) / SIDE * ((w_ + SIDE - 1) / SIDE), places = sizes[5], jobs = jobs_of(maps_);
  threads_ = THREADS;
  lines.assign((size_t)places * KINDS * tiles * LINE_VALUES, 0.f);
  states.assign((size_t)places * (KINDS * tiles * VALUE + LANES), {0.f, 0.f});
  counters.assign(jobs * 2 + places, 0);
  const int programs = places * tiles;
  fibers.resize(programs * THREADS);
  for (Fiber& f : fibers) f.stack = (char*)malloc(32768);
  for (int i = 0; i < programs; i++) shared_memory.push_back((char*)aligned_alloc(1024, (sizeof(Shared) + 1023) / 1024 * 1024));
  of_program.resize(programs);
  of_warp.resize(programs * 32);
  of_team.resize(programs * 32);
  std::ofstream out(folder + "/y", std::ios::binary);
  for (int i = 0; i < 3; i++) {
    std::fill(y.begin(), y.end(), (T)NAN);
    launch(programs, atoi(arguments[2]) + i);
    out.write((char*)y.data(), y.size() * sizeof(T));
  }
}
