#include "cpu/isa.hpp"

#include <array>
#include <span>
#include <string>
#include <vector>

#include "base/text.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/error.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pagedcore::cpu {
namespace {

constexpr std::array<std::string_view, 6> kNames{"portable", "avx2", "avx512", "avx512_bf16", "amx", "neon"};

#if defined(__x86_64__)

struct CpuidRegisters {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidRegisters cpuid(unsigned leaf, unsigned subleaf) {
  CpuidRegisters r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);  // leaves zeros where the leaf does not exist
  return r;
}

bool bit(unsigned word, int position) { return (word >> position & 1u) != 0; }

/// Register states that the operating system saves on a context switch.
unsigned enabled_state() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

/// Linux hands out the 8 KiB of tile state per thread only to processes that asked for it. The grant covers every
/// thread of the process and stays.
bool request_tile_state() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

/// Best set that CPU and operating system both carry, before the question of permission for amx.
Isa detect() {
  const CpuidRegisters basic = cpuid(1, 0), extended = cpuid(7, 0), extended1 = cpuid(7, 1);
  if (!bit(basic.ecx, 27)) return Isa::portable;  // OSXSAVE: xgetbv itself
  const unsigned state = enabled_state();
  const auto saves = [&](unsigned mask) { return (state & mask) == mask; };

  const bool avx2 = saves(0x6) && bit(basic.ecx, 12) /* FMA */ && bit(basic.ecx, 29) /* F16C */ && bit(extended.ebx, 5);
  if (!avx2) return Isa::portable;
  const bool avx512 = saves(0xe6) && bit(extended.ebx, 16) /* F */ && bit(extended.ebx, 17) /* DQ */ &&
                      bit(extended.ebx, 30) /* BW */ && bit(extended.ebx, 31) /* VL */;
  if (!avx512) return Isa::avx2;
  if (!bit(extended1.eax, 5)) return Isa::avx512;
  const bool amx = saves(0x60000) && bit(extended.edx, 22) /* AMX-BF16 */ && bit(extended.edx, 24) /* AMX-TILE */;
  return amx ? Isa::amx : Isa::avx512_bf16;
}

bool has_vnni_on_this_cpu(Isa isa) {
  if (isa == Isa::avx2) return bit(cpuid(7, 1).eax, 4);
  return isa != Isa::portable && bit(cpuid(7, 0).ecx, 11);
}

bool supported_on_this_cpu(Isa isa) {
  static const Isa detected = detect();
  if (isa == Isa::neon || isa > detected) return false;
  if (isa != Isa::amx) return true;
  static const bool granted = request_tile_state();  // asked once, on first use
  return granted;
}

#elif defined(__aarch64__)

bool has_vnni_on_this_cpu(Isa) { return false; }

bool supported_on_this_cpu(Isa isa) { return isa == Isa::portable || isa == Isa::neon; }

#else

bool has_vnni_on_this_cpu(Isa) { return false; }
bool supported_on_this_cpu(Isa isa) { return isa == Isa::portable; }

#endif

std::string list_of_supported() {
  std::string list;
  for (const std::string& isa : cpu_isas()) list += (list.empty() ? "" : ", ") + isa;
  return list;
}

}  // namespace

std::string_view name(Isa isa) noexcept { return kNames[static_cast<std::size_t>(isa)]; }

bool supported(Isa isa) noexcept { return supported_on_this_cpu(isa); }
bool has_vnni(Isa isa) noexcept { return supported(isa) && has_vnni_on_this_cpu(isa); }

Isa best() noexcept {
  for (const Isa isa : {Isa::neon, Isa::amx, Isa::avx512_bf16, Isa::avx512, Isa::avx2})
    if (supported(isa)) return isa;
  return Isa::portable;
}

Isa parse_isa(std::string_view text) {
  if (text == "auto") return best();
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (text != kNames[i]) continue;
    const Isa isa = static_cast<Isa>(i);
    if (supported(isa)) return isa;
    throw Unsupported(str("instruction set '", text, "' is not available on this machine; it has: ",
                          list_of_supported(), ". Use one of these, or 'auto'"));
  }
  throw InvalidArgument(str("unknown instruction set '", text, "'; this machine has: ", list_of_supported(),
                            ". Use one of these, or 'auto'"));
}

}  // namespace pagedcore::cpu

namespace pagedcore {

std::span<const std::string> cpu_isas() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> found;
    for (std::size_t i = 0; i < cpu::kNames.size(); ++i)
      if (cpu::supported(static_cast<cpu::Isa>(i))) found.emplace_back(cpu::kNames[i]);
    return found;
  }();
  return names;
}

}  // namespace pagedcore
