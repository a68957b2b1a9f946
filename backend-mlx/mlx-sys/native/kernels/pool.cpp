// A job's parts are claimed one by one, so that a helper that the system gives no time to costs nothing: the others do its
// share. OpenBLAS's threads get fixed shares and wait for each other, which on a machine with other work on it made a step ten
// times slower. Between jobs helpers stay awake for as long as a decoding step's next product takes to come, then sleep.
#include "pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace duet {
namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// How long a helper looks out for the next job before it sleeps.
constexpr auto patience = std::chrono::microseconds(60);

class Pool {
 public:
  void run(Part part, const void* job, int n_parts) {
    std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
    if (!lock || n_threads_ <= 1 || n_parts <= 1) {
      for (int index = 0; index < n_parts; index++) {
        part(job, index);
      }
      return;
    }
    start_helpers();
    n_wanted_.store(n_threads_ - 1, std::memory_order_relaxed);
    part_ = part;
    job_ = job;
    unfinished_.store(n_parts, std::memory_order_relaxed);
    // The parts left to claim, beside the job's number, so that nobody can claim a part of a job that is over.
    uint32_t number = ++number_;
    left_.store(uint64_t{number} << 32 | static_cast<uint32_t>(n_parts), std::memory_order_release);
    calls_.store(number, std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) {
      calls_.notify_all();
    }
    claim_all();
    for (int left = unfinished_.load(std::memory_order_acquire), turns = 0; left > 0;
         left = unfinished_.load(std::memory_order_acquire), turns++) {
      turns < 2000 ? relax() : std::this_thread::yield();
    }
  }

  void set_threads(int n) {
    std::lock_guard<std::mutex> lock(busy_);
    n_threads_ = std::max(n, 1);
  }

 private:
  void start_helpers() {
    // For the life of the process: they hold nothing.
    try {
      for (; n_helpers_ < n_threads_ - 1; n_helpers_++) {
        std::thread([this, index = n_helpers_] { help(index); }).detach();
      }
    } catch (const std::system_error&) {
      // The system gives no more threads: those that there are do it.
      n_threads_ = n_helpers_ + 1;
    }
  }

  void claim_all() {
    uint64_t left = left_.load(std::memory_order_acquire);
    while (static_cast<uint32_t>(left) > 0) {
      if (left_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
        part_(job_, static_cast<int>(static_cast<uint32_t>(left)) - 1);
        unfinished_.fetch_sub(1, std::memory_order_acq_rel);
        left = left_.load(std::memory_order_acquire);
      }
    }
  }

  void help(int index) {
    uint32_t seen = 0;
    for (;;) {
      auto until = std::chrono::steady_clock::now() + patience;
      int turns = 0;
      while (calls_.load(std::memory_order_acquire) == seen) {
        relax();
        if (++turns % 64 == 0 && std::chrono::steady_clock::now() > until) {
          asleep_.fetch_add(1, std::memory_order_seq_cst);
          calls_.wait(seen, std::memory_order_seq_cst);
          asleep_.fetch_sub(1, std::memory_order_relaxed);
        }
      }
      seen = calls_.load(std::memory_order_acquire);
      if (index < n_wanted_.load(std::memory_order_relaxed)) {
        claim_all();
      }
    }
  }

  std::mutex busy_;
  int n_threads_ = 1;
  int n_helpers_ = 0;
  std::atomic<int> n_wanted_{0};
  uint32_t number_ = 0;
  Part part_ = nullptr;
  const void* job_ = nullptr;
  alignas(64) std::atomic<uint64_t> left_{0};
  alignas(64) std::atomic<int> unfinished_{0};
  alignas(64) std::atomic<uint32_t> calls_{0};
  std::atomic<int> asleep_{0};
};

// Never destroyed: its helpers run until the process ends.
Pool& pool() {
  static Pool* pool = new Pool;
  return *pool;
}

}  // namespace

void run_parts(Part part, const void* job, int n_parts) {
  pool().run(part, job, n_parts);
}

void set_pool_threads(int n) {
  pool().set_threads(n);
}

}  // namespace duet
