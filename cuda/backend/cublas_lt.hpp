// Matrix products by cuBLASLt over plain weights (kernels/matmul_layout.hpp). Where it lacks an epilogue, our own
// kernel finishes the sums.
//
// It chooses an algorithm by the shape, and with it the order of a sum: a row's bits depend on the number of rows.
#pragma once

#include <compare>
#include <map>
#include <memory>
#include <string>

#include "backend/cublas_lt_library.hpp"
#include "backend/device.hpp"
#include "kernels/matmul.hpp"
#include "sizes/sizes.hpp"

namespace pagedcore::cuda {

class CublasLt {
 public:
  /// Opens the library. Throws Unsupported where it is missing or unfit, or serves this device not.
  CublasLt(Device& device, DType type, std::size_t workspace_bytes);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  /// For people: with the library's version.
  std::string name() const { return "cuBLASLt " + library_.version(); }

  /// Device memory that it takes: its own workspace, and f32 sums on their way to an epilogue.
  std::size_t bytes() const noexcept { return own_bytes_ + sums_bytes_; }
  /// Takes it now: else the first product does.
  void take_memory();

  /// Enqueues what launch_matmul() would, with inputs of the constructor's type and a plain weight. Throws Unsupported
  /// where the library has no algorithm for the shape and OutOfMemory where not one row of sums has room, with nothing
  /// enqueued. Any other failure of the library stops the backend, or ends a recording.
  void multiply(const MatmulArgs& args);

 private:
  /// All that an algorithm is chosen by, besides what is the same for all products.
  struct Product {
    std::int32_t m, n, k;
    std::int64_t in_stride, out_stride;
    cudaDataType out_type;
    std::uint32_t in_alignment, out_alignment;  // bytes
    auto operator<=>(const Product&) const = default;
  };
  template <class Object>
  struct Destroy {
    lt::Status (*function)(Object*);
    void operator()(Object* object) const { function(object); }
  };
  template <class Object>
  using Owned = std::unique_ptr<Object, Destroy<Object>>;
  /// A product as the library describes it, and its algorithm.
  struct Plan {
    Owned<lt::DescObject> desc;
    Owned<lt::LayoutObject> weights, in, out;
    lt::Algorithm algorithm;
  };
  template <class Object, class Function, class... Args>
  Owned<Object> make(Function create, lt::Status (*destroy)(Object*), const Product& product, Args... args);

  static Product product_of(const MatmulArgs& args, std::int32_t n, const void* out, std::int64_t out_stride,
                            cudaDataType out_type);
  const Plan& plan_of(const Product& product);
  void enqueue(const Plan& plan, const Product& product, const MatmulArgs& args, void* out, float beta);
  void finish_pieces(const MatmulArgs& args);
  std::string text_of(const Product& product) const;
  /// Throws where a call about `product` failed.
  void check(lt::Status status, const char* call, const Product& product);

  Device& device_;
  const lt::Library library_;
  const DType type_;
  const std::size_t own_bytes_, sums_bytes_;
  lt::Handle handle_ = nullptr;
  DeviceMemory memory_;  // own, then sums
  std::map<Product, Plan> plans_;
};

}  // namespace pagedcore::cuda
