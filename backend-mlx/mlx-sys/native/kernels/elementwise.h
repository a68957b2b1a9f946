// What a decoder computes value by value between its products.
#pragma once
#include <cstdint>

namespace duet {

// out[i][t] = x[i][t] / sqrt(mean over t of x[i][t]^2 + eps) * weight[t], for x and out [rows, width].
void rms_norm(int64_t rows, int64_t width, const float* x, const float* weight, float eps, float* out);

// out[i][t] = silu(both[i][t]) * both[i][width + t], for both [rows, 2 width] and out [rows, width].
void swiglu(int64_t rows, int64_t width, const float* both, float* out);

}  // namespace duet
