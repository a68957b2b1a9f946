// Products with a matrix of weights.
#pragma once
#include <cstdint>

namespace duet {

// y[i][j] = sum over t of x[i][t] * w[j][t], for x [m, k], w [n, k] and y [m, n], rows `ldx`, `ldw` and `ldy` apart.
// Every y[i][j] is computed in the same order whatever m is: a row's result does not depend on its neighbours.
void product(
    int64_t m, int64_t n, int64_t k, const float* x, int64_t ldx, const float* w, int64_t ldw, float* y, int64_t ldy);

}  // namespace duet
