// Arrays over memory of the caller's. libmlx has a constructor for that, which on CPUs copies all the same: its allocator
// there keeps a buffer's size in the eight bytes before the values, and refuses memory that has none. Here it gets them.
#include <cstddef>
#include <exception>
#include <functional>

#include "mlx/allocator.h"
#include "mlx/array.h"
#include "mlx/c/error.h"
#include "mlx/c/private/mlx.h"

namespace {

namespace allocator = mlx::core::allocator;

// Whether libmlx's buffers begin with their size, as its allocator for CPUs makes them and those for GPUs do not.
bool sizes_lie_in_front() {
  constexpr std::size_t n_bytes = 4096;
  auto buffer = allocator::malloc(n_bytes);
  auto* start = static_cast<char*>(buffer.ptr());
  bool in_front = start != nullptr && buffer.raw_ptr() == start + sizeof(std::size_t) &&
      *reinterpret_cast<std::size_t*>(start) == n_bytes && allocator::allocator().size(buffer) == n_bytes;
  allocator::free(buffer);
  return in_front;
}

} // namespace

// An f32 array over `values`, before which eight bytes are the caller's to give as well. libmlx calls `release` with `owner`
// once, from any thread, when it needs them no more. 0; 2, and nothing is done, where libmlx holds its buffers in another
// way; 1 after telling mlx-c's error handler.
extern "C" int duet_adopt(
    mlx_array* result, float* values, const int* shape, std::size_t n_axes, void* owner, void (*release)(void*)) {
  try {
    static const bool possible = sizes_lie_in_front();
    if (!possible) {
      return 2;
    }
    mlx::core::Shape lengths(shape, shape + n_axes);
    std::size_t n_bytes = sizeof(float);
    for (auto length : lengths) {
      n_bytes *= static_cast<std::size_t>(length);
    }
    auto* start = reinterpret_cast<std::size_t*>(values) - 1;
    *start = n_bytes;
    mlx_array_set_(
        *result,
        mlx::core::array(
            allocator::Buffer(start), std::move(lengths), mlx::core::float32,
            [owner, release](allocator::Buffer) { release(owner); }));
    return 0;
  } catch (const std::exception& error) {
    mlx_error("%s", error.what());
    return 1;
  }
}
