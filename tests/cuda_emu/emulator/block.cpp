#include "emulator/block.hpp"

#include <bit>
#include <cstdio>
#include <cstdlib>

#include "emulator/device.hpp"
#include "emulator/sanitizer.hpp"
#include "emulator/traffic.hpp"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace cuda_emu {
namespace {

constexpr unsigned kMaxThreads = 1024;

/// The addresses behind edges of __syncwarp. Masks have addresses of their own, and two in turn, so that a slow lane
/// does not take over what a fast one did after the barrier.
struct WarpOrder {
  char address[2][64];
  std::uint8_t turn[64];
};

struct Warp {
  std::uint32_t live = 0;
  std::uint32_t pending = 0;  // exchanges in use
  WarpExchange exchanges[32];
  LaneWords out[32];
  WarpOrder order;
};

/// What a block runs on. Threads keep their fibers, and through them their identity for ThreadSanitizer.
struct Bank {
  Thread threads[kMaxThreads];
  Warp warps[kMaxThreads / 32];
  char barrier_order[2];
  char done[2];  // by the end of a block; in turn, as threads of one block are not ordered by one's end and another's
                 // start
  unsigned turn = 0;
};

struct Barrier {
  unsigned waiting = 0;
  BarrierKind kind = BarrierKind::sync;
  Where where;
  unsigned count = 0;  // predicates that held
  unsigned turn = 0;
  int result = 0;
};

Bank banks[kBanks];
Bank* bank = banks;
Barrier block_barrier;
const Launch* running = nullptr;
Thread* current = nullptr;
Fiber host;
unsigned num_threads = 0, num_exited = 0;
std::uint64_t ready[kMaxThreads / 64];
char launched;
Counters totals;
std::uint64_t random_state = 1;

unsigned number(const Thread& thread) { return static_cast<unsigned>(&thread - bank->threads); }

void make_ready(unsigned i) {
  bank->threads[i].state = State::ready;
  ready[i / 64] |= std::uint64_t{1} << (i % 64);
}

int first_ready_from(unsigned start) {
  for (unsigned word = start / 64; word < kMaxThreads / 64; ++word) {
    const std::uint64_t bits = word == start / 64 ? ready[word] & (~std::uint64_t{0} << (start % 64)) : ready[word];
    if (bits != 0) return static_cast<int>(word * 64) + std::countr_zero(bits);
  }
  return -1;
}

int last_ready() {
  for (int word = kMaxThreads / 64 - 1; word >= 0; --word) {
    if (ready[word] != 0) return word * 64 + 63 - std::countl_zero(ready[word]);
  }
  return -1;
}

/// The thread that runs next, no longer in the ready set; null: none can.
Thread* pick() {
  int i = -1;
  switch (options().order) {
    case Order::ascending:
    case Order::others_first:
      i = first_ready_from(0);
      break;
    case Order::descending:
      i = last_ready();
      break;
    case Order::random:
      i = first_ready_from(static_cast<unsigned>(random_number() % num_threads));
      if (i < 0) i = first_ready_from(0);
  }
  if (i < 0) return nullptr;
  ready[i / 64] &= ~(std::uint64_t{1} << (i % 64));
  return &bank->threads[i];
}

void run(Thread& thread) {
  current = &thread;
  threadIdx = thread.index;
  ++totals.switches;
}

[[noreturn]] void deadlock() {
  std::string waits;
  for (unsigned i = 0; i < num_threads; ++i) {
    const Thread& t = bank->threads[i];
    if (t.state == State::exited) continue;
    const bool as_before =
        i > 0 && bank->threads[i - 1].state == t.state && bank->threads[i - 1].where.line() == t.where.line();
    if (as_before) continue;
    waits += "\n  from thread " + std::to_string(i) + " on: waiting in " +
             (t.state == State::at_barrier ? "__syncthreads" : "a warp operation") + " at " + text(t.where);
  }
  fail("deadlock: no thread of the block can go on" + waits, current->where);
}

/// Waits until another thread makes this one ready.
void wait() {
  Thread& me = *current;
  Thread* next = pick();
  if (next == nullptr) deadlock();
  if (next != &me) {
    run(*next);
    switch_fiber(me.fiber, next->fiber);
  }
  if (me.order != nullptr) {
    acquire(me.order);
    me.order = nullptr;
  }
}

/// Ends the exchanges of a warp that all their lanes have reached.
void settle(unsigned warp_index) {
  Warp& warp = bank->warps[warp_index];
  for (std::uint32_t left = warp.pending; left != 0; left &= left - 1) {
    const int slot = std::countr_zero(left);
    WarpExchange& x = warp.exchanges[slot];
    if ((x.mask & ~warp.live) != 0) {
      fail(std::string(name(x.op)) + " names a lane in its mask that has exited or does not exist", x.where);
    }
    if (x.arrived != x.mask) continue;
    warp.pending &= ~(1u << slot);
    ++totals.warp_ops;
    resolve(x, warp.out);
    void* order = nullptr;
    if (x.op == WarpOp::sync) {
      const std::uint32_t bucket = x.mask * 0x9e3779b9u >> 26;
      order = &warp.order.address[warp.order.turn[bucket]][bucket];
      warp.order.turn[bucket] ^= 1;
    }
    for (std::uint32_t lanes = x.mask; lanes != 0; lanes &= lanes - 1) {
      const unsigned i = warp_index * 32 + static_cast<unsigned>(std::countr_zero(lanes));
      bank->threads[i].order = order;
      make_ready(i);
    }
  }
}

[[gnu::no_sanitize("address")]] void thread_main() {
  enter_fiber();
  acquire(&launched);
  acquire(&bank->done[bank->turn ^ 1]);
  running->thread();
  Thread& me = *current;
  if (!me.copies.empty()) fail("a thread exits with cp.async copies that it did not wait for", me.where);
  if (block_barrier.waiting > 0) fail("a thread exits while others wait at a barrier", block_barrier.where);
  release(&bank->done[bank->turn]);
  me.state = State::exited;
  ++num_exited;
  const unsigned i = number(me);
  bank->warps[i / 32].live &= ~(1u << (i % 32));
  settle(i / 32);
  Thread* next = pick();
  if (next == nullptr && num_exited < num_threads) deadlock();
  if (next != nullptr) run(*next);
  switch_fiber(me.fiber, next != nullptr ? next->fiber : host);
  std::abort();
}

}  // namespace

Thread* current_thread() { return current; }
const Launch* current_launch() { return running; }
unsigned thread_number() { return number(*current); }
unsigned lane() { return number(*current) % 32; }
const Counters& counters() { return totals; }
Counters& mutable_counters() { return totals; }

std::uint64_t random_number() {  // xorshift64*
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 0x2545f4914f6cdd1dull >> 16;
}
void seed_random_numbers(std::uint64_t seed) { random_state = seed * 0x9e3779b97f4a7c15ull | 1; }

int barrier(BarrierKind kind, int predicate, const Where& where) {
  Thread& me = *current;
  Barrier& b = block_barrier;
  me.where = where;
  if (num_exited > 0) fail("a barrier of the block after one of its threads has exited", where);
  if (b.waiting == 0) {
    b.kind = kind;
    b.where = where;
    b.count = 0;
  } else if (b.kind != kind || b.where.line() != where.line()) {
    fail("divergent barrier: other threads of the block wait at " + text(b.where), where);
  }
  if (predicate != 0) ++b.count;
  release(&bank->barrier_order[b.turn]);
  me.state = State::at_barrier;
  if (++b.waiting == num_threads) {
    ++totals.barriers;
    b.waiting = 0;
    b.result = static_cast<int>(kind == BarrierKind::count ? b.count
                                : kind == BarrierKind::all ? b.count == num_threads
                                                           : b.count > 0);
    for (unsigned i = 0; i < num_threads; ++i) {
      bank->threads[i].order = &bank->barrier_order[b.turn];
      make_ready(i);
    }
    b.turn ^= 1;
  }
  wait();
  return b.result;
}

void warp_op(WarpOp op, std::uint32_t mask, int argument, const std::uint32_t* in, int words_in, std::uint32_t* out,
             int words_out, const Where& where) {
  Thread& me = *current;
  const unsigned i = number(me), my_lane = i % 32;
  Warp& warp = bank->warps[i / 32];
  me.where = where;
  if ((mask >> my_lane & 1u) == 0) fail(std::string(name(op)) + ": the calling lane is not in its mask", where);
  WarpExchange* x = nullptr;
  for (std::uint32_t left = warp.pending; left != 0; left &= left - 1) {
    WarpExchange& candidate = warp.exchanges[std::countr_zero(left)];
    if (candidate.mask == mask) x = &candidate;
  }
  if (x == nullptr) {
    const int slot = std::countr_one(warp.pending);
    warp.pending |= 1u << slot;
    x = &warp.exchanges[slot];
    x->op = op;
    x->mask = mask;
    x->arrived = 0;
    x->words_in = words_in;
    x->words_out = words_out;
    x->where = where;
  } else if (x->op != op || x->where.line() != where.line()) {
    fail(std::string(name(op)) + ": other lanes of the mask wait in " + name(x->op) + " at " + text(x->where), where);
  }
  x->arrived |= 1u << my_lane;
  x->argument[my_lane] = argument;
  for (int w = 0; w < words_in; ++w) x->in[my_lane][w] = in[w];
  if (op == WarpOp::sync) {
    const std::uint32_t bucket = mask * 0x9e3779b9u >> 26;
    release(&warp.order.address[warp.order.turn[bucket]][bucket]);
  }
  me.state = State::in_warp_op;
  settle(i / 32);
  wait();
  for (int w = 0; w < words_out; ++w) out[w] = warp.out[my_lane][w];
}

void fence() {
  static char order;
  release(&order);
  acquire(&order);
}

void run_block(const Launch& launch, uint3 index, unsigned bank_index) {
  running = &launch;
  bank = &banks[bank_index];
  num_threads = launch.block.x * launch.block.y * launch.block.z;
  num_exited = 0;
  blockIdx = index;
  blockDim = launch.block;
  gridDim = launch.grid;
  block_barrier.waiting = 0;
  shared_memory_begin(bank_index, launch.dynamic_shared_bytes);
  for (unsigned w = 0; w * 32 < num_threads; ++w) {
    const unsigned lanes = num_threads - w * 32;
    bank->warps[w].live = lanes >= 32 ? ~0u : (1u << lanes) - 1;
    bank->warps[w].pending = 0;
  }
  for (unsigned i = 0; i < num_threads; ++i) {
    Thread& t = bank->threads[i];
    t.index = {i % launch.block.x, i / launch.block.x % launch.block.y, i / launch.block.x / launch.block.y};
    t.where = launch.where;
    t.order = nullptr;
    t.copies.clear();
    t.groups.clear();
    prepare_fiber(t.fiber, thread_main);
    make_ready(i);
  }
  ++totals.blocks;
  totals.threads += num_threads;
  adopt_thread(host);
  release(&launched);
  Thread* first = pick();
  run(*first);
  switch_fiber(host, first->fiber);
  bank->turn ^= 1;
  end_of_block_traffic();
  current = nullptr;
  running = nullptr;
}

void end_of_launch() {
  for (Bank& b : banks) {
    for (char& done : b.done) acquire(&done);
  }
}

}  // namespace cuda_emu
