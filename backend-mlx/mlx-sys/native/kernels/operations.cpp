// The kernels as operations of libmlx's graphs, in mlx-c's manner: a status, and the message through its error handler.
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "attention.h"
#include "elementwise.h"
#include "mlx/allocator.h"
#include "mlx/array.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/c/error.h"
#include "mlx/c/private/mlx.h"
#include "mlx/primitives.h"

namespace {

using mlx::core::array;
using mlx::core::Shape;

// An operation on rows of f32, on a CPU's stream.
class Operation : public mlx::core::Primitive {
 public:
  using Primitive::Primitive;

  void eval_gpu(const std::vector<array>&, std::vector<array>&) override {
    throw std::runtime_error(std::string(name()) + " is an operation for CPUs");
  }

 protected:
  static void check(const std::vector<array>& inputs) {
    for (const array& input : inputs) {
      if (input.dtype() != mlx::core::float32 || !input.flags().row_contiguous) {
        throw std::runtime_error("an operation of duet's wants contiguous f32");
      }
    }
  }

  static float* allocate(array& output) {
    output.set_data(mlx::core::allocator::malloc(output.nbytes()));
    return output.data<float>();
  }

  // Memory to work in until what is dispatched by then is done.
  float* scratch(size_t n) {
    if (n > static_cast<size_t>(std::numeric_limits<int>::max())) {
      throw std::length_error("too many tokens for one step");
    }
    array values(Shape{static_cast<int>(n)}, mlx::core::float32, nullptr, {});
    float* data = allocate(values);
    mlx::core::cpu::get_command_encoder(stream()).add_temporary(std::move(values));
    return data;
  }

  template <typename Work>
  void dispatch(Work&& work) {
    mlx::core::cpu::get_command_encoder(stream()).dispatch(std::forward<Work>(work));
  }
};

class RmsNorm : public Operation {
 public:
  RmsNorm(mlx::core::Stream stream, float eps) : Operation(stream), eps_(eps) {}

  const char* name() const override {
    return "duet::RmsNorm";
  }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check(inputs);
    int64_t width = inputs[0].shape(-1), rows = static_cast<int64_t>(inputs[0].size()) / width;
    const float *x = inputs[0].data<float>(), *weight = inputs[1].data<float>();
    float* out = allocate(outputs[0]);
    dispatch([=, eps = eps_] { duet::rms_norm(rows, width, x, weight, eps, out); });
  }

 private:
  float eps_;
};

class SwiGlu : public Operation {
 public:
  using Operation::Operation;

  const char* name() const override {
    return "duet::SwiGlu";
  }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check(inputs);
    int64_t width = outputs[0].shape(-1), rows = outputs[0].shape(0);
    const float* both = inputs[0].data<float>();
    float* out = allocate(outputs[0]);
    dispatch([=] { duet::swiglu(rows, width, both, out); });
  }
};

// Inputs: qkv, cos, sin, perhaps the norms' weights, then keys and values of each row. Outputs: the attention, then keys and
// values of each row, which are written in place where nobody else holds them.
class Attention : public Operation {
 public:
  Attention(
      mlx::core::Stream stream, const duet::AttentionShape& shape, bool has_norm,
      const std::vector<duet::AttentionRow>& rows)
      : Operation(stream),
        has_norm_(has_norm),
        n_rows_(rows.size()),
        plan_(std::make_shared<const duet::AttentionPlan>(shape, rows)) {}

  const char* name() const override {
    return "duet::Attention";
  }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check(inputs);
    // Each output has handles on the inputs of its own, any of which would keep a buffer from being written in place.
    for (array& output : outputs) {
      if (output.inputs().data() != inputs.data()) {
        output.inputs().clear();
      }
    }
    size_t first_buffer = has_norm_ ? 4 : 3;
    std::vector<duet::AttentionBuffers> buffers(n_rows_);
    for (size_t row = 0; row < n_rows_; row++) {
      size_t at = 2 * row;
      buffers[row].keys = take_over(inputs[first_buffer + at], outputs[1 + at]);
      buffers[row].values = take_over(inputs[first_buffer + at + 1], outputs[2 + at]);
    }
    duet::AttentionInputs given{
        inputs[0].data<float>(), inputs[1].data<float>(), inputs[2].data<float>(),
        has_norm_ ? inputs[3].data<float>() : nullptr};
    float *work = scratch(plan_->n_scratch()), *out = allocate(outputs[0]);
    dispatch([=, plan = plan_, buffers = std::move(buffers)] { plan->run(given, buffers.data(), work, out); });
  }

 private:
  // Gives the buffer of `input` to `output`, or a copy if something else still needs it.
  float* take_over(const array& input, array& output) {
    if (input.is_donatable() && input.data_size() == input.size()) {
      output.copy_shared_buffer(input);
      return output.data<float>();
    }
    const float* from = input.data<float>();
    float* to = allocate(output);
    dispatch([from, to, n = input.nbytes()] { std::memcpy(to, from, n); });
    return to;
  }

  bool has_norm_;
  size_t n_rows_;
  std::shared_ptr<const duet::AttentionPlan> plan_;  // shared with the stream's thread, which may run it after this is gone
};

template <typename Work>
int guarded(Work&& work) {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    mlx_error("%s", error.what());
  } catch (...) {
    mlx_error("an operation of duet's failed");
  }
  return 1;
}

bool is_f32(const array& values) {
  return values.dtype() == mlx::core::float32;
}

void expect(bool fits, const char* what) {
  if (!fits) {
    throw std::invalid_argument(what);
  }
}

}  // namespace

extern "C" {

struct duet_attention_shape {
  int n_heads, n_kv_heads, dim, window;
  bool neighbours;
  float eps;
};

struct duet_attention_row {
  int64_t start, n, position;
};

int duet_rms_norm(mlx_array* result, mlx_array x, mlx_array weight, float eps, mlx_stream stream) {
  return guarded([&] {
    const array &values = mlx_array_get_(x), &weights = mlx_array_get_(weight);
    expect(values.ndim() > 0 && values.shape(-1) > 0 && weights.shape() == Shape{values.shape(-1)}, "[rms_norm] one weight per column");
    expect(is_f32(values) && is_f32(weights), "[rms_norm] f32");
    auto operation = std::make_shared<RmsNorm>(mlx_stream_get_(stream), eps);
    mlx_array_set_(*result, array(values.shape(), mlx::core::float32, std::move(operation), {values, weights}));
  });
}

int duet_swiglu(mlx_array* result, mlx_array both, mlx_stream stream) {
  return guarded([&] {
    const array& values = mlx_array_get_(both);
    expect(values.ndim() == 2 && values.shape(1) % 2 == 0, "[swiglu] gate and up side by side");
    expect(is_f32(values), "[swiglu] f32");
    Shape shape{values.shape(0), values.shape(1) / 2};
    auto operation = std::make_shared<SwiGlu>(mlx_stream_get_(stream));
    mlx_array_set_(*result, array(shape, mlx::core::float32, std::move(operation), {values}));
  });
}

// `buffers` and `results` hold keys and values of each row by turns; `results` has the attention before them.
int duet_attention(
    mlx_array* results, mlx_array qkv, mlx_array cos, mlx_array sin, const mlx_array* norm, const mlx_array* buffers,
    const duet_attention_row* rows, size_t n_rows, duet_attention_shape given, mlx_stream stream) {
  return guarded([&] {
    duet::AttentionShape shape{given.n_heads, given.n_kv_heads, given.dim, given.window, given.neighbours, given.eps};
    expect(
        shape.dim > 0 && shape.dim % 16 == 0 && shape.dim <= 256 && shape.n_kv_heads > 0 &&
            shape.n_heads % shape.n_kv_heads == 0 && shape.n_heads / shape.n_kv_heads <= 16,
        "[attention] heads of 16 to 256 values, 16 of them to a group at most");
    const array &all = mlx_array_get_(qkv), &cosines = mlx_array_get_(cos), &sines = mlx_array_get_(sin);
    expect(all.ndim() == 2, "[attention] queries, keys and values side by side");
    int n_tokens = all.shape(0), width = (shape.n_heads + 2 * shape.n_kv_heads) * shape.dim;
    expect(all.shape() == Shape{n_tokens, width}, "[attention] queries, keys and values side by side");
    expect(
        cosines.shape() == Shape{n_tokens, shape.dim / 2} && sines.shape() == cosines.shape(),
        "[attention] an angle for each token and pair");
    std::vector<array> inputs{all, cosines, sines};
    if (norm != nullptr) {
      inputs.push_back(mlx_array_get_(*norm));
      expect(
          inputs.back().shape() == Shape{shape.n_heads + shape.n_kv_heads, shape.dim},
          "[attention] weights for each head of queries and keys");
    }
    std::vector<duet::AttentionRow> own;
    std::vector<Shape> shapes{Shape{}};
    int64_t n_out = 0;
    for (size_t row = 0; row < n_rows; row++) {
      const duet_attention_row& place = rows[row];
      expect(
          place.n > 0 && place.start >= 0 && place.start + place.n <= n_tokens && place.position >= 0,
          "[attention] rows within the step");
      int64_t capacity = 0;
      for (int side = 0; side < 2; side++) {
        const array& buffer = mlx_array_get_(buffers[2 * row + side]);
        expect(
            buffer.ndim() == 3 && buffer.shape(0) == shape.n_kv_heads && buffer.shape(2) == shape.dim &&
                buffer.shape(1) >= place.position + place.n && (side == 0 || buffer.shape(1) == capacity),
            "[attention] room in the buffers");
        capacity = buffer.shape(1);
        inputs.push_back(buffer);
        shapes.push_back(buffer.shape());
      }
      own.push_back({place.start, place.n, place.position, capacity});
      n_out += place.n;
    }
    for (const array& input : inputs) {
      expect(is_f32(input), "[attention] f32");
    }
    shapes[0] = Shape{static_cast<int>(n_out), shape.n_heads * shape.dim};
    auto operation =
        std::make_shared<Attention>(mlx_stream_get_(stream), shape, norm != nullptr, own);
    std::vector<mlx::core::Dtype> types(shapes.size(), mlx::core::float32);
    auto outputs = array::make_arrays(std::move(shapes), types, operation, inputs);
    for (size_t at = 0; at < outputs.size(); at++) {
      mlx_array_set_(results[at], std::move(outputs[at]));
    }
  });
}

}  // extern "C"
