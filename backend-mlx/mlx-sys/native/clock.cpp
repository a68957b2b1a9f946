// mlx-rs seeds its default random state from this macOS clock. It only has to differ from run to run.
#include <chrono>
#include <cstdint>

extern "C" uint64_t mach_approximate_time() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}
