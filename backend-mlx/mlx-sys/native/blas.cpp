// OpenBLAS in front of the reference BLAS that comes with libmlx's wheel and that its DT_RPATH pins.
//
// A program's own symbols come first in the dynamic linker's order, so libmlx finds its matrix products here. They go on to
// the prefixed functions of scipy-openblas32, which by that become a direct dependency of the program. LAPACK stays with the
// wheel: nothing on the way of a token uses it.
#include <dlfcn.h>

#include <atomic>
#include <cstdint>

#include "kernels/lanes.h"
#include "kernels/pool.h"
#include "kernels/product.h"

extern "C" {

void scipy_cblas_sgemm(
    int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
void scipy_cblas_sgemv(
    int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
void scipy_cblas_dgemm(
    int, int, int, int, int, int, double, const double*, int, const double*, int, double, double*, int);
void scipy_cblas_cgemm(
    int, int, int, int, int, int, const void*, const void*, int, const void*, int, const void*, void*, int);
void scipy_openblas_set_num_threads(int);
int scipy_openblas_get_num_threads();
char* scipy_openblas_get_config();

} // extern "C"

namespace {
std::atomic<uint64_t> products{0};

void count() {
  products.fetch_add(1, std::memory_order_relaxed);
}

constexpr int row_major = 101;
constexpr int not_transposed = 111;
constexpr int transposed = 112;

// Whether duet's own product is the faster one (docs/decisions/mlx-cpu-speed.md). It knows the form that a layer's product has,
// x times the transposed weights; without wide vectors it is worth it as long as reading the weights is what takes the time.
bool is_own(int order, int transpose_a, int transpose_b, int m, int k, float alpha, float beta) {
  static const bool wide = duet::best_lanes() >= 8;
  return order == row_major && transpose_a == not_transposed && transpose_b == transposed && alpha == 1 && beta == 0 &&
      k >= 32 && (wide || m <= 16);
}

// Up to so many rows are multiplied one by one in the other forms.
constexpr int few_rows = 3;
} // namespace

// What libmlx looks up must be visible whatever the compiler's default is.
#define EXPORTED extern "C" __attribute__((visibility("default"), used))

EXPORTED void cblas_sgemm(
    int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float* a, int lda,
    const float* b, int ldb, float beta, float* c, int ldc) {
  count();
  if (is_own(order, transpose_a, transpose_b, m, k, alpha, beta)) {
    duet::product(m, n, k, a, lda, b, ldb, c, ldc);
    return;
  }
  if (order == row_major && m <= few_rows && k > 0) {
    // A token or two: OpenBLAS's product first copies the matrix into its own order, which costs several times what reading
    // it once does, and its x86 kernels do not notice the vector.
    int b_rows = transpose_b == transposed ? n : k;
    int b_columns = transpose_b == transposed ? k : n;
    int use = transpose_b == transposed ? not_transposed : transposed;
    int step = transpose_a == transposed ? lda : 1;
    for (int row = 0; row < m; row++) {
      const float* x = transpose_a == transposed ? a + row : a + static_cast<int64_t>(row) * lda;
      float* y = c + static_cast<int64_t>(row) * ldc;
      scipy_cblas_sgemv(row_major, use, b_rows, b_columns, alpha, b, ldb, x, step, beta, y, 1);
    }
    return;
  }
  scipy_cblas_sgemm(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

EXPORTED void cblas_dgemm(
    int order, int transpose_a, int transpose_b, int m, int n, int k, double alpha, const double* a, int lda,
    const double* b, int ldb, double beta, double* c, int ldc) {
  count();
  scipy_cblas_dgemm(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

EXPORTED void cblas_cgemm(
    int order, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a, int lda,
    const void* b, int ldb, const void* beta, void* c, int ldc) {
  count();
  scipy_cblas_cgemm(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

extern "C" {

void duet_blas_set_threads(int threads) {
  scipy_openblas_set_num_threads(threads);
  duet::set_pool_threads(threads);
}

int duet_blas_threads() {
  return scipy_openblas_get_num_threads();
}

const char* duet_blas_config() {
  return scipy_openblas_get_config();
}

int duet_kernel_lanes() {
  return duet::best_lanes();
}

uint64_t duet_blas_products() {
  return products.load(std::memory_order_relaxed);
}

const char* duet_blas_library() {
  Dl_info info{};
  auto function = reinterpret_cast<void*>(&scipy_cblas_sgemm);
  return dladdr(function, &info) != 0 ? info.dli_fname : nullptr;
}

} // extern "C"
