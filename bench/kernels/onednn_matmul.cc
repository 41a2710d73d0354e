#include "bench/kernels/onednn_matmul.h"

#include <dnnl.hpp>
#include <map>
#include <tuple>

#include "base/check.h"

namespace millrace {
namespace {

struct Problem {
  dnnl::matmul matmul;
  dnnl::memory x, w, y;
};

dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

Problem make_problem(const OnednnMatmulArgs& a) {
  using Tag = dnnl::memory::format_tag;
  const auto type = a.dtype == DType::kF32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
  const dnnl::memory::desc x({a.M, a.K}, type, Tag::ab), w({a.K, a.N}, type, Tag::ba),
      y({a.M, a.N}, dnnl::memory::data_type::f32, Tag::ab);
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(x, w, y), engine());
  return {dnnl::matmul(description), dnnl::memory(x, engine(), nullptr), dnnl::memory(w, engine(), nullptr),
          dnnl::memory(y, engine(), nullptr)};
}

}  // namespace

void onednn_matmul(const OnednnMatmulArgs& a) {
  MR_CHECK(a.dtype == DType::kF32 || a.dtype == DType::kBf16, "oneDNN product of {}", dtype_name(a.dtype));
  using Key = std::tuple<int64_t, int64_t, int64_t, DType>;
  static std::map<Key, Problem> problems;
  static dnnl::stream stream(engine());
  const Key key{a.M, a.N, a.K, a.dtype};
  auto it = problems.find(key);
  if (it == problems.end()) it = problems.emplace(key, make_problem(a)).first;
  Problem& p = it->second;
  p.x.set_data_handle(const_cast<void*>(a.x));
  p.w.set_data_handle(const_cast<void*>(a.w));
  p.y.set_data_handle(a.y);
  p.matmul.execute(stream, {{DNNL_ARG_SRC, p.x}, {DNNL_ARG_WEIGHTS, p.w}, {DNNL_ARG_DST, p.y}});
  stream.wait();
}

}  // namespace millrace
