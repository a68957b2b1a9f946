// Rows of weights are read once from memory, a tile of them at a time, and multiplied with all rows of x while they are in
// the cache. While one tile is worked on the next is fetched. OpenBLAS's product copies the matrix into an order of its own
// first, which for a few rows costs several times what reading it does.
#include "product.h"

#include <algorithm>

#include "lanes.h"
#include "pool.h"

namespace duet {
namespace {

struct Job {
  int64_t m, n, k;
  const float* x;
  int64_t ldx;
  const float* w;
  int64_t ldw;
  float* y;
  int64_t ldy;
  int64_t rows_per_part;
};

// Which lines of the next rows of w a pass fetches.
enum Fetch { nothing, even, odd, all };

// A range of t.
struct Span {
  int64_t from, to;
};

// y of R rows of x and C rows of w, over a span of t; added to what is there unless the span is the first.
template <int L, int R, int C, Fetch fetch>
DUET_INLINE void tile(const Job& job, int64_t row, int64_t column, Span span) {
  const float* x = job.x + row * job.ldx;
  const float* w = job.w + column * job.ldw;
  Floats<L> totals[R * C] = {};
  int64_t t = span.from;
  for (; t + L <= span.to; t += L) {
    Floats<L> weights[C];
    bool fetches = fetch == all ? L == 16 || t % 16 == 0 : fetch != nothing && t % 32 == (fetch == odd ? 16 : 0);
#pragma GCC unroll 16
    for (int c = 0; c < C; c++) {
      weights[c] = load<L>(w + c * job.ldw + t);
    }
    if (fetches) {
#pragma GCC unroll 16
      for (int c = 0; c < C; c++) {
        __builtin_prefetch(w + (C + c) * job.ldw + t);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      Floats<L> values = load<L>(x + r * job.ldx + t);
#pragma GCC unroll 16
      for (int c = 0; c < C; c++) {
        totals[r * C + c] += values * weights[c];
      }
    }
  }
  float sum_of[R * C];
  int at = 0;
#pragma GCC unroll 16
  for (; at + 4 <= R * C; at += 4) {
    store<4>(sum_of + at, sums(totals[at], totals[at + 1], totals[at + 2], totals[at + 3]));
  }
#pragma GCC unroll 16
  for (; at < R * C; at++) {
    sum_of[at] = sum(totals[at]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    float* y = job.y + (row + r) * job.ldy + column;
#pragma GCC unroll 16
    for (int c = 0; c < C; c++) {
      float total = sum_of[r * C + c];
      for (int64_t rest = t; rest < span.to; rest++) {
        total += x[r * job.ldx + rest] * w[c * job.ldw + rest];
      }
      y[c] = span.from == 0 ? total : y[c] + total;
    }
  }
}

// y of the rows `row..end` of x and C rows of w. The last passes fetch the next rows of w.
template <int L, int C>
DUET_INLINE void column_tile(const Job& job, int64_t row, int64_t end, int64_t column, Span span) {
  Fetch fetch = all;
  for (; row + 4 < end; row += 4) {
    if (row + 8 == end) {
      tile<L, 4, C, even>(job, row, column, span);
      fetch = odd;
    } else {
      tile<L, 4, C, nothing>(job, row, column, span);
    }
  }
  switch (end - row) {
    case 4:
      return fetch == odd ? tile<L, 4, C, odd>(job, row, column, span) : tile<L, 4, C, all>(job, row, column, span);
    case 3:
      return tile<L, 3, C, all>(job, row, column, span);
    case 2:
      return tile<L, 2, C, all>(job, row, column, span);
    default:
      return tile<L, 1, C, all>(job, row, column, span);
  }
}

// Spans of t are that long at most, so that a tile of weights stays in the first-level cache beside some rows of x.
constexpr int64_t longest_span = 640;
constexpr int64_t x_values = 7168;

template <int L>
DUET_INLINE void product_part(const Job& job, int part) {
  // Four rows and C columns of sums, C vectors of weights and one of x fit the registers.
  constexpr int C = L == 16 ? 6 : 3;
  int64_t n_spans = (job.k + longest_span - 1) / longest_span;
  int64_t step = ((job.k + n_spans - 1) / n_spans + 15) / 16 * 16;
  int64_t block = std::max<int64_t>(4, x_values / step / 4 * 4);
  int64_t from = part * job.rows_per_part, to = std::min(job.n, from + job.rows_per_part);
  for (int64_t row = 0; row < job.m; row += block) {
    int64_t end = std::min(job.m, row + block);
    for (Span span{0, std::min(step, job.k)}; span.from < job.k; span = {span.to, std::min(span.to + step, job.k)}) {
      int64_t column = from;
      for (; column + C <= to; column += C) {
        column_tile<L, C>(job, row, end, column, span);
      }
      for (; column < to; column++) {
        column_tile<L, 1>(job, row, end, column, span);
      }
    }
  }
}

DUET_KERNEL(product_part, Job)

// Weights per part: long enough to outweigh claiming it, short enough that nobody waits for the last one.
constexpr int64_t values_per_part = 1 << 15;

}  // namespace

void product(
    int64_t m, int64_t n, int64_t k, const float* x, int64_t ldx, const float* w, int64_t ldw, float* y, int64_t ldy) {
  int64_t rows = std::max<int64_t>(24, values_per_part / std::max<int64_t>(k, 1) / 24 * 24);
  Job job{m, n, k, x, ldx, w, ldw, y, ldy, rows};
  run_parts(product_part_best(), &job, static_cast<int>((n + rows - 1) / rows));
}

}  // namespace duet
