// Instruction sets, chosen at run time. Kernels exist once per set; a backend binds to one set when it is made.
#pragma once

#include <string_view>

namespace pagedcore::cpu {

/// In ascending order of preference within an architecture. `amx` implies avx512_bf16, which implies avx512, and so on.
enum class Isa : int { portable, avx2, avx512, avx512_bf16, amx, neon };

std::string_view name(Isa isa) noexcept;
/// True when this CPU and this operating system run the set (for amx: the kernel granted the tile state).
bool supported(Isa isa) noexcept;
/// True when this CPU has products of bytes that are summed in 32 bits, as the sources *_avxvnni.cpp (`avx2`) and
/// *_avx512vnni.cpp (the sets above) use them. Both are beside the sets: some CPUs of each set have them.
bool has_vnni(Isa isa) noexcept;
/// The best supported set.
Isa best() noexcept;
/// "auto" or a name. Throws InvalidArgument for an unknown name, Unsupported for one that this CPU lacks (both list
/// what there is).
Isa parse_isa(std::string_view text);

}  // namespace pagedcore::cpu
