// mlx-c's access to half-precision values for machines where its headers know no such C type. The bits are the same
// everywhere, so callers see 16-bit integers; src/half.rs declares them.
#include "mlx/c/half.h"

#ifndef HAS_FLOAT16
#include <bit>
#include <cstdint>
#include <exception>

#include "mlx/c/error.h"
#include "mlx/c/private/mlx.h"

namespace {

// The value of a one-element array, by its bits; 1 after telling mlx-c's error handler why there is none.
template <typename T>
int item(uint16_t* result, mlx_array array) {
  try {
    *result = std::bit_cast<uint16_t>(mlx_array_get_(array).item<T>());
    return 0;
  } catch (const std::exception& error) {
    mlx_error("%s", error.what());
    return 1;
  }
}

template <typename T>
const uint16_t* data(mlx_array array) {
  try {
    return reinterpret_cast<const uint16_t*>(mlx_array_get_(array).data<T>());
  } catch (const std::exception& error) {
    mlx_error("%s", error.what());
    return nullptr;
  }
}

} // namespace

extern "C" {

int mlx_array_item_float16(uint16_t* result, mlx_array array) {
  return item<mlx::core::float16_t>(result, array);
}

int mlx_array_item_bfloat16(uint16_t* result, mlx_array array) {
  return item<mlx::core::bfloat16_t>(result, array);
}

const uint16_t* mlx_array_data_float16(mlx_array array) {
  return data<mlx::core::float16_t>(array);
}

const uint16_t* mlx_array_data_bfloat16(mlx_array array) {
  return data<mlx::core::bfloat16_t>(array);
}

} // extern "C"
#endif
