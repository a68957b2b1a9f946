// Attention of new tokens of several sequences over each sequence's own keys and values.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace duet {

struct AttentionShape {
  int n_heads;
  int n_kv_heads;
  int dim;  // of a head; a multiple of 16
  int window;  // keys that a query sees, its own included; 0: all
  bool neighbours;  // neighbours rotate together, and not the halves of a head
  float eps;  // of the norms of queries and keys
};

// New tokens of one sequence.
struct AttentionRow {
  int64_t start;  // its first token's place among all tokens of the step
  int64_t n;
  int64_t position;  // tokens in the sequence before
  int64_t capacity;  // tokens that its buffers have room for
};

// Where one sequence's keys and values are, [n_kv_heads, capacity, dim] each.
struct AttentionBuffers {
  float *keys, *values;
};

struct AttentionInputs {
  const float* qkv;  // [tokens of the step, (n_heads + 2 n_kv_heads) * dim]
  const float *cos, *sin;  // [tokens of the step, dim / 2]
  const float* norm;  // [n_heads + n_kv_heads, dim], the weights of the norms, or null
};

// The work of one step, divided into parts. Made beforehand, as `run` must not fail: it is called where nobody can be told.
class AttentionPlan {
 public:
  AttentionPlan(const AttentionShape& shape, const std::vector<AttentionRow>& rows);

  // Floats that `run` needs to work in.
  size_t n_scratch() const {
    return n_query_values_ + n_partial_values_;
  }

  // Turns queries and keys, puts keys and values into the buffers, one for each row, and gives `out` [tokens of the rows in
  // order, n_heads * dim]. A token's result does not depend on other rows.
  void run(const AttentionInputs& inputs, const AttentionBuffers* buffers, float* scratch, float* out) const noexcept;

  // Some tokens of a row.
  struct Tokens {
    AttentionRow row;
    size_t buffers;  // the row's number
    int64_t first, n;  // within the row
    int64_t out;  // place of the first among the tokens of all rows
  };

  // One block of keys for the queries of some tokens and one head of keys.
  struct Piece {
    size_t tokens;
    int kv_head;
    int64_t from, to;  // keys
    int64_t partial;  // place of its partial result: [n queries, dim + 2]
  };

  // The pieces of the same queries.
  struct Join {
    size_t from, to;
  };

  // Pieces and joins of which the partial results are in memory at a time.
  struct Batch {
    size_t pieces, joins;  // where it ends
  };

 private:
  AttentionShape shape_;
  std::vector<Tokens> tokens_;
  std::vector<Piece> pieces_;  // blocks of the same queries one after another
  std::vector<Join> joins_;
  std::vector<Batch> batches_;
  size_t n_query_values_ = 0, n_partial_values_ = 0;
};

}  // namespace duet
