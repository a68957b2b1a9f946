// Keys are read in blocks, each by one part of the job: scores, their exponentials and the weighted sum of values while the
// block is in the cache. A query's blocks are put together by their largest scores, in their order, so that neither the
// number of threads nor the other rows change a result.
#include "attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lanes.h"
#include "pool.h"

namespace duet {
namespace {

constexpr int block_keys = 512;
// Queries that share keys, worked on together: tokens of one sequence times heads of one group.
constexpr int most_queries = 16;
constexpr int most_dim = 256;
// Partial results in memory at a time, so that they stay in the cache, however long a prompt's chunk and its context are.
constexpr int64_t most_partials = 1 << 17;

using Tokens = AttentionPlan::Tokens;
using Piece = AttentionPlan::Piece;
using Join = AttentionPlan::Join;

struct Job {
  AttentionShape shape;
  AttentionInputs inputs;
  const AttentionBuffers* buffers;
  const Tokens* tokens;
  const Piece* pieces;  // of the batch
  const Piece* all_pieces;
  const Join* joins;  // of the batch
  float* queries;  // [tokens of the rows, n_heads, dim]
  float* partials;
  float* out;
};

// `from` [dim], normalised if there are weights, times `scale`, turned by the angles of its position.
template <int L>
DUET_INLINE void turn(const Job& job, const float* from, const float* norm, int64_t token, float scale, float* to) {
  int dim = job.shape.dim, half = dim / 2;
  const float *cos = job.inputs.cos + token * half, *sin = job.inputs.sin + token * half;
  float values[most_dim];
  if (norm != nullptr) {
    Floats<L> squares = {};
    for (int at = 0; at < dim; at += L) {
      Floats<L> x = load<L>(from + at);
      squares += x * x;
    }
    float root = 1.0f / std::sqrt(sum(squares) / dim + job.shape.eps);
    for (int at = 0; at < dim; at += L) {
      store<L>(values + at, load<L>(from + at) * root * load<L>(norm + at));
    }
    from = values;
  }
  if (job.shape.neighbours) {
    for (int pair = 0; pair < half; pair++) {
      float one = from[2 * pair] * scale, other = from[2 * pair + 1] * scale;
      to[2 * pair] = one * cos[pair] - other * sin[pair];
      to[2 * pair + 1] = other * cos[pair] + one * sin[pair];
    }
    return;
  }
  constexpr int W = L > 8 ? 8 : L;  // half a head is a multiple of 8
  for (int at = 0; at < half; at += W) {
    Floats<W> one = load<W>(from + at) * scale, other = load<W>(from + half + at) * scale;
    Floats<W> c = load<W>(cos + at), s = load<W>(sin + at);
    store<W>(to + at, one * c - other * s);
    store<W>(to + half + at, other * c + one * s);
  }
}

// Queries into their place, keys and values into the buffers.
template <int L>
DUET_INLINE void enter_part(const Job& job, int part) {
  const auto& [n_heads, n_kv_heads, dim, window, neighbours, eps] = job.shape;
  const Tokens& tokens = job.tokens[part];
  const AttentionRow& row = tokens.row;
  const AttentionBuffers& buffers = job.buffers[tokens.buffers];
  float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (int64_t index = 0; index < tokens.n; index++) {
    int64_t token = row.start + tokens.first + index, position = row.position + tokens.first + index;
    const float* qkv = job.inputs.qkv + token * (n_heads + 2 * n_kv_heads) * dim;
    float* queries = job.queries + (tokens.out + index) * n_heads * dim;
    auto weights = [&](int head) { return job.inputs.norm == nullptr ? nullptr : job.inputs.norm + head * dim; };
    for (int head = 0; head < n_heads; head++) {
      turn<L>(job, qkv + head * dim, weights(head), token, scale, queries + head * dim);
    }
    for (int head = 0; head < n_kv_heads; head++) {
      int64_t place = (head * row.capacity + position) * dim;
      turn<L>(job, qkv + (n_heads + head) * dim, weights(n_heads + head), token, 1.0f, buffers.keys + place);
      std::memcpy(buffers.values + place, qkv + (n_heads + n_kv_heads + head) * dim, dim * sizeof(float));
    }
  }
}

// Scores of R queries, `dim` apart, with four keys.
template <int L, int R>
DUET_INLINE void score_four(const float* queries, const float* keys, int dim, float* scores) {
  Floats<L> totals[R][4] = {};
  for (int at = 0; at < dim; at += L) {
    Floats<L> key[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
      key[c] = load<L>(keys + c * dim + at);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      Floats<L> query = load<L>(queries + r * dim + at);
#pragma GCC unroll 4
      for (int c = 0; c < 4; c++) {
        totals[r][c] += query * key[c];
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    store<4>(scores + r * block_keys, sums(totals[r][0], totals[r][1], totals[r][2], totals[r][3]));
  }
}

template <int L>
DUET_INLINE float score_one(const float* query, const float* key, int dim) {
  Floats<L> total = {};
  for (int at = 0; at < dim; at += L) {
    total += load<L>(query + at) * load<L>(key + at);
  }
  return sum(total);
}

// Values of R queries weighted by `weights`, `block_keys` apart: four vectors of a head at a time.
template <int L, int R, int V>
DUET_INLINE void weigh(
    const float* weights, const float* values, int64_t n_keys, int dim, float* out, int64_t out_step) {
  for (int at = 0; at < dim; at += V * L) {
    Floats<L> totals[R][V] = {};
    for (int64_t key = 0; key < n_keys; key++) {
      Floats<L> value[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) {
        value[v] = load<L>(values + key * dim + at + v * L);
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        Floats<L> weight = splat<L>(weights[r * block_keys + key]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
          totals[r][v] += weight * value[v];
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) {
        store<L>(out + r * out_step + at + v * L, totals[r][v]);
      }
    }
  }
}

template <int L, int R>
DUET_INLINE void weigh_rows(
    const float* weights, const float* values, int64_t n_keys, int dim, float* out, int64_t out_step) {
  if (dim % (4 * L) == 0) {
    weigh<L, R, 4>(weights, values, n_keys, dim, out, out_step);
  } else {
    weigh<L, R, 1>(weights, values, n_keys, dim, out, out_step);
  }
}

// Makes scores weights: e^(score - largest) for keys `from..to`, 0 for the others. Gives the largest and the sum.
template <int L>
DUET_INLINE void exponentials(float* scores, int64_t n_keys, int64_t from, int64_t to, float* largest, float* total) {
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  int64_t end = (n_keys + L - 1) / L * L;
  std::fill(scores, scores + from, lowest);
  std::fill(scores + to, scores + end, lowest);
  Floats<L> tops = splat<L>(lowest);
  for (int64_t at = 0; at < end; at += L) {
    Floats<L> x = load<L>(scores + at);
    tops = x > tops ? x : tops;
  }
  float top = lowest;
  for (int lane = 0; lane < L; lane++) {
    top = std::max(top, tops[lane]);
  }
  Floats<L> all = {};
  for (int64_t at = 0; at < end; at += L) {
    Floats<L> x = load<L>(scores + at);
    Floats<L> power = x == lowest ? Floats<L>{} : exponential<L>(x - top);
    store<L>(scores + at, power);
    all += power;
  }
  *largest = top;
  *total = sum(all);
}

template <int L>
DUET_INLINE void block_part(const Job& job, int part) {
  const Piece& piece = job.pieces[part];
  const Tokens& tokens = job.tokens[piece.tokens];
  const AttentionRow& row = tokens.row;
  int dim = job.shape.dim, group = job.shape.n_heads / job.shape.n_kv_heads;
  int n_queries = static_cast<int>(tokens.n) * group;
  int64_t n_keys = piece.to - piece.from;
  int64_t place = (piece.kv_head * row.capacity + piece.from) * dim;
  const float *keys = job.buffers[tokens.buffers].keys + place, *values = job.buffers[tokens.buffers].values + place;

  alignas(64) float scores[most_queries * block_keys];
  alignas(64) float queries[most_queries * most_dim];
  for (int query = 0; query < n_queries; query++) {
    int64_t token = tokens.out + query / group;
    int64_t head = piece.kv_head * group + query % group;
    std::memcpy(queries + query * dim, job.queries + (token * job.shape.n_heads + head) * dim, dim * sizeof(float));
  }
  int64_t key = 0;
  for (; key + 4 <= n_keys; key += 4) {
    for (int query = 0; query < n_queries;) {
      const float *q = queries + query * dim, *k = keys + key * dim;
      float* to = scores + query * block_keys + key;
      switch (n_queries - query) {
        case 1:
          score_four<L, 1>(q, k, dim, to);
          query += 1;
          break;
        case 2:
          score_four<L, 2>(q, k, dim, to);
          query += 2;
          break;
        case 4:
          score_four<L, 4>(q, k, dim, to);
          query += 4;
          break;
        default:
          score_four<L, 3>(q, k, dim, to);
          query += 3;
      }
    }
  }
  for (; key < n_keys; key++) {
    for (int query = 0; query < n_queries; query++) {
      scores[query * block_keys + key] = score_one<L>(queries + query * dim, keys + key * dim, dim);
    }
  }
  int64_t step = dim + 2;
  float* partial = job.partials + piece.partial;
  for (int query = 0; query < n_queries; query++) {
    int64_t position = row.position + tokens.first + query / group;
    int64_t to = std::min(n_keys, position + 1 - piece.from);
    int64_t from = job.shape.window == 0 ? 0 : std::max<int64_t>(0, position + 1 - job.shape.window - piece.from);
    float* own = partial + query * step;
    exponentials<L>(scores + query * block_keys, n_keys, std::min(from, n_keys), std::max<int64_t>(to, 0), own, own + 1);
  }
  for (int query = 0; query < n_queries;) {
    const float* weights = scores + query * block_keys;
    float* out = partial + query * step + 2;
    switch (n_queries - query) {
      case 1:
        weigh_rows<L, 1>(weights, values, n_keys, dim, out, step);
        query += 1;
        break;
      case 2:
        weigh_rows<L, 2>(weights, values, n_keys, dim, out, step);
        query += 2;
        break;
      case 4:
        weigh_rows<L, 4>(weights, values, n_keys, dim, out, step);
        query += 4;
        break;
      default:
        weigh_rows<L, 3>(weights, values, n_keys, dim, out, step);
        query += 3;
    }
  }
}

// The blocks of one query put together: `out` [dim].
template <int L>
DUET_INLINE void put_together(const float* partial, int64_t n_blocks, int64_t block_step, int dim, float* out) {
  float largest = partial[0];
  for (int64_t block = 1; block < n_blocks; block++) {
    largest = std::max(largest, partial[block * block_step]);
  }
  float total = 0.0f;
  std::fill(out, out + dim, 0.0f);
  for (int64_t block = 0; block < n_blocks; block++) {
    const float* from = partial + block * block_step;
    // A block of which the query sees nothing has no largest score.
    float share = from[1] == 0.0f ? 0.0f : std::exp(from[0] - largest);
    total += share * from[1];
    for (int at = 0; at < dim; at += L) {
      store<L>(out + at, load<L>(out + at) + share * load<L>(from + 2 + at));
    }
  }
  for (int at = 0; at < dim; at += L) {
    store<L>(out + at, load<L>(out + at) / total);
  }
}

template <int L>
DUET_INLINE void join_part(const Job& job, int part) {
  const Join& join = job.joins[part];
  const Piece& piece = job.all_pieces[join.from];
  const Tokens& tokens = job.tokens[piece.tokens];
  int dim = job.shape.dim, group = job.shape.n_heads / job.shape.n_kv_heads;
  int64_t n_queries = tokens.n * group, step = dim + 2;
  for (int64_t query = 0; query < n_queries; query++) {
    int64_t head = piece.kv_head * group + query % group, token = tokens.out + query / group;
    put_together<L>(
        job.partials + piece.partial + query * step, static_cast<int64_t>(join.to - join.from), n_queries * step, dim,
        job.out + (token * job.shape.n_heads + head) * dim);
  }
}

DUET_KERNEL(enter_part, Job)
DUET_KERNEL(block_part, Job)
DUET_KERNEL(join_part, Job)

// Calling others would take longer than few parts do.
void run_unless_few(Part part, const Job& job, size_t n) {
  if (n >= 16) {
    run_parts(part, &job, static_cast<int>(n));
    return;
  }
  for (size_t index = 0; index < n; index++) {
    part(&job, static_cast<int>(index));
  }
}

}  // namespace

AttentionPlan::AttentionPlan(const AttentionShape& shape, const std::vector<AttentionRow>& rows) : shape_(shape) {
  int group = shape.n_heads / shape.n_kv_heads;
  int64_t at_once = std::max(1, most_queries / group), n_tokens = 0, n_partials = 0, most = 0;
  for (size_t number = 0; number < rows.size(); number++) {
    const AttentionRow& row = rows[number];
    for (int64_t first = 0; first < row.n; first += at_once) {
      Tokens some{row, number, first, std::min(at_once, row.n - first), n_tokens};
      n_tokens += some.n;
      int64_t position = row.position + first, end = position + some.n;
      int64_t begin = shape.window == 0 ? 0 : std::max<int64_t>(0, position + 1 - shape.window);
      int64_t first_key = begin / block_keys * block_keys;
      int64_t n_blocks = (end - first_key + block_keys - 1) / block_keys;
      int64_t values = some.n * group * (shape.dim + 2);
      if (n_partials > 0 && n_partials + shape.n_kv_heads * n_blocks * values > most_partials) {
        batches_.push_back({pieces_.size(), joins_.size()});
        n_partials = 0;
      }
      for (int head = 0; head < shape.n_kv_heads; head++) {
        joins_.push_back({pieces_.size(), pieces_.size() + static_cast<size_t>(n_blocks)});
        for (int64_t from = first_key; from < end; from += block_keys) {
          pieces_.push_back({tokens_.size(), head, from, std::min(from + block_keys, end), n_partials});
          n_partials += values;
        }
      }
      most = std::max(most, n_partials);
      tokens_.push_back(some);
    }
  }
  batches_.push_back({pieces_.size(), joins_.size()});
  n_query_values_ = n_tokens * shape.n_heads * shape.dim;
  n_partial_values_ = most;
}

void AttentionPlan::run(
    const AttentionInputs& inputs, const AttentionBuffers* buffers, float* scratch, float* out) const noexcept {
  Job job{shape_, inputs, buffers, tokens_.data(), pieces_.data(), pieces_.data(), joins_.data(), scratch,
          scratch + n_query_values_, out};
  run_unless_few(enter_part_best(), job, tokens_.size());
  Batch before{0, 0};
  for (const Batch& batch : batches_) {
    job.pieces = pieces_.data() + before.pieces;
    job.joins = joins_.data() + before.joins;
    run_parts(block_part_best(), &job, static_cast<int>(batch.pieces - before.pieces));
    run_unless_few(join_part_best(), job, batch.joins - before.joins);
    before = batch;
  }
}

}  // namespace duet
