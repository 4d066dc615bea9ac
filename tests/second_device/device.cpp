// A second device that computes on the processor, and is as strict as a graphics card: a tensor of
// it and a tensor of the processor do not meet in one operation. PyTorch keeps a name free for
// devices from outside, PrivateUse1; this file gives that name memory, and sends its operations on.
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>

#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr auto kind = c10::DeviceType::PrivateUse1;
const c10::Device place(kind, 0);

// --- memory: plain memory, labelled as the device's --------------------------------------------
void release(void* memory) { std::free(memory); }

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = bytes ? std::malloc(bytes) : nullptr;
    return {memory, memory, &release, place};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};
Memory memory;

// --- what PyTorch asks of a device: there is one, and nothing on it has to be waited for --------
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kind; }
  c10::Device getDevice() const override { return place; }
  c10::Device exchangeDevice(c10::Device) const override { return place; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override {
    return c10::Stream(c10::Stream::DEFAULT, place);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

// --- the few operations that must know the device -----------------------------------------------
at::Tensor on_processor(const at::Tensor& x) {  // the same numbers at the same address
  if (x.device().type() != kind) return x;
  auto options = at::TensorOptions().dtype(x.dtype()).device(at::kCPU);
  return at::from_blob(x.mutable_data_ptr(), x.sizes(), x.strides(), options);
}

at::Tensor empty(c10::IntArrayRef sizes, std::optional<at::ScalarType> type,
                 std::optional<at::Layout>, std::optional<c10::Device>, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(sizes, &memory, keys, c10::dtype_or_default(type), format);
}

at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides,
                         std::optional<at::ScalarType> type, std::optional<at::Layout>,
                         std::optional<c10::Device>, std::optional<bool>) {
  c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  auto scalar = c10::dtype_or_default(type);
  return at::detail::empty_strided_generic(sizes, strides, &memory, keys, scalar);
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  on_processor(to).copy_(on_processor(from));
  return to;
}

at::Tensor copy_resized(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar one_number(const at::Tensor& x) { return on_processor(x).item(); }

const at::Tensor& resize(const at::Tensor& x, c10::SymIntArrayRef sizes,
                         std::optional<at::MemoryFormat>) {
  auto wanted = C10_AS_INTARRAYREF_SLOW(sizes);
  size_t bytes = (c10::multiply_integers(wanted) + x.storage_offset()) * x.element_size();
  auto& storage = x.storage();
  if (bytes > storage.nbytes()) {
    auto larger = memory.allocate(bytes);
    if (storage.nbytes()) std::memcpy(larger.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(larger));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
  x.unsafeGetTensorImpl()->set_sizes_contiguous(wanted);
  return x;
}

// PyTorch asks other devices for an LSTM's step in one piece, which the processor does not have.
std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_step(
    const at::Tensor& of_input, const at::Tensor& of_state, const at::Tensor& cell,
    const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& other_bias) {
  auto sum = of_input + of_state;
  if (bias) sum = sum + *bias + *other_bias;
  auto gates = sum.chunk(4, 1);  // in, forget, new, out
  auto kept = gates[1].sigmoid() * cell + gates[0].sigmoid() * gates[2].tanh();
  return {gates[3].sigmoid() * kept.tanh(), kept, sum};
}

// --- everything else: look at the arguments, then let the processor do it ------------------------
bool may_mix(const std::string& name) {  // indices may lie on the processor, and copies cross over
  for (const char* allowed : {"aten::index.", "aten::index_put", "aten::_index_put"})
    if (name.rfind(allowed, 0) == 0) return true;
  return name.find("copy") != std::string::npos && name.rfind("aten::index_copy", 0) != 0;
}

void elsewhere(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  auto name = toString(operation.schema().operator_name());
  bool ours = false, theirs = false;  // a single number without axes may come from anywhere
  auto look = [&](const at::Tensor& x) {
    if (!x.defined()) return;
    ours |= x.device().type() == kind;
    theirs |= x.is_cpu() && x.dim() > 0;
  };
  for (const auto& value : torch::jit::last(*stack, operation.schema().arguments().size())) {
    if (value.isTensor()) look(value.toTensor());
    if (value.isTensorList())
      for (const at::Tensor& x : value.toTensorVector()) look(x);
  }
  TORCH_CHECK(may_mix(name) || !(ours && theirs), name, ": tensors on 'second' and on the cpu");
  at::native::cpu_fallback(operation, stack);
}

}  // namespace

REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &memory);
namespace {
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_resized);
  library.impl("_local_scalar_dense", &one_number);
  library.impl("resize_", &resize);
  library.impl("as_strided", &at::native::as_strided_tensorimpl);
  library.impl("view", &at::native::view);
  library.impl("_reshape_alias", &at::native::_reshape_alias);
  library.impl("unfold", &at::native::unfold);
  library.impl("_thnn_fused_lstm_cell", &lstm_step);
}

TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, library) {
  library.impl("_thnn_fused_lstm_cell", &lstm_step);  // its gradient is that of its parts
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&elsewhere>());
}

// --- half precision, where torch.autocast is on: products, and nothing else ----------------------
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(bmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(scaled_dot_product_attention, lower_precision_fp)
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("begin", [] { at::RegisterPrivateUse1HooksInterface(new Hooks()); });
}
