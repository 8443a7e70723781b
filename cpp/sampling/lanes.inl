// Sixteen floats side by side, whatever the width of the machine's registers: one of 64 bytes, two of 32 or four of 16.
// Every lane sees the same operations in the same order at every width, so all widths give the same bits. Included by
// row_kernels.inl, once per instruction set.

struct Lanes {
  // Comparisons appear in conditional expressions only: GCC 12 takes a comparison used as a value apart into scalars.
  typedef float Floats __attribute__((vector_size(PAGEDCORE_REGISTER_BYTES)));
  typedef std::int32_t Ints __attribute__((vector_size(PAGEDCORE_REGISTER_BYTES)));
  static constexpr int kRegisters = 64 / PAGEDCORE_REGISTER_BYTES;
  static constexpr int kWidth = PAGEDCORE_REGISTER_BYTES / 4;  // floats

  Floats v[kRegisters];

  static PAGEDCORE_INLINE Lanes all(float x) {
    Lanes out;
    PAGEDCORE_EACH_REGISTER out.v[r] = Floats{} + x;
    return out;
  }
  static PAGEDCORE_INLINE Lanes load(const float* p) {
    Lanes out;
    PAGEDCORE_EACH_REGISTER std::memcpy(&out.v[r], p + r * kWidth, sizeof(Floats));  // one by one: GCC would go by way
    return out;                                                                      // of the stack
  }
  /// The last count < 16 values of a row, the other lanes filled.
  static PAGEDCORE_INLINE Lanes load_tail(const float* p, std::size_t count, float fill) {
    Lanes out = all(fill);
    std::memcpy(&out, p, count * sizeof(float));
    return out;
  }
  PAGEDCORE_INLINE void store(float* p) const {
    PAGEDCORE_EACH_REGISTER std::memcpy(p + r * kWidth, &v[r], sizeof(Floats));
  }
  PAGEDCORE_INLINE void store_head(float* p, std::size_t count) const { std::memcpy(p, v, count * sizeof(float)); }

  PAGEDCORE_INLINE void add(const Lanes& x) { PAGEDCORE_EACH_REGISTER v[r] += x.v[r]; }
  PAGEDCORE_INLINE void max(const Lanes& x) { PAGEDCORE_EACH_REGISTER v[r] = x.v[r] > v[r] ? x.v[r] : v[r]; }
  PAGEDCORE_INLINE Lanes shifted_scaled(float shift, float scale) const {
    Lanes out;
    PAGEDCORE_EACH_REGISTER out.v[r] = (v[r] - shift) * scale;
    return out;
  }
  /// Those lanes whose bit is set, lane i's being bit i, and -inf in the others.
  PAGEDCORE_INLINE Lanes kept(std::uint32_t bits) const {
    Lanes out;
    PAGEDCORE_EACH_REGISTER {
      Ints own;
      std::memcpy(&own, kLaneBits + r * kWidth, sizeof(Ints));
      const Ints set = (Ints{} + static_cast<std::int32_t>(bits)) & own;
      out.v[r] = set != Ints{} ? v[r] : Floats{} - kInfinity;
    }
    return out;
  }

  /// e^x for x <= 0: x = n ln 2 + r with |r| <= ln 2 / 2, and e^r = 1 + r + r^2 q(r), q of degree 4 fitted for the
  /// least maximum of the relative error (3e-9). Values below the smallest normal float become 0.
  PAGEDCORE_INLINE Lanes exp() const {
    Lanes out;
    PAGEDCORE_EACH_REGISTER out.v[r] = exp(v[r]);
    return out;
  }

 private:
  static PAGEDCORE_INLINE Floats exp(const Floats& argument) {
    constexpr float kLog2E = 1.44269504f;
    constexpr float kLn2High = 0.693359375f;  // few bits, so that n * kLn2High is exact
    constexpr float kLn2Low = -2.12194440e-4f;
    constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    constexpr std::int32_t kRounderBits = 0x4B400000;
    const Floats lowest = Floats{} - 87.33654f;  // ln(FLT_MIN)
    const Floats x = argument > lowest ? argument : lowest;
    const Floats shifted = x * kLog2E + kRounder;
    const Floats n = shifted - kRounder;
    const Floats r = (x - n * kLn2High) - n * kLn2Low;
    Floats q = Floats{} + 0.001381446490995586f;
    q = q * r + 0.008368780836462975f;
    q = q * r + 0.04166839271783829f;
    q = q * r + 0.1666651964187622f;
    q = q * r + 0.4999999403953552f;
    const Floats mantissa = (q * r * r + r) + 1.0f;
    Ints bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - kRounderBits + 127) << 23;
    Floats power;
    std::memcpy(&power, &bits, sizeof power);
    return argument >= lowest ? mantissa * power : Floats{};
  }
};

/// Sixteen counters or flags beside Lanes of the same width.
struct Counts {
  using Ints = Lanes::Ints;
  static constexpr int kRegisters = Lanes::kRegisters;

  Ints v[kRegisters] = {};

  PAGEDCORE_INLINE void add_greater(const Lanes& x, float y) {
    PAGEDCORE_EACH_REGISTER v[r] += x.v[r] > y ? Ints{} + 1 : Ints{};
  }
  PAGEDCORE_INLINE void add_equal(const Lanes& x, float y) {
    PAGEDCORE_EACH_REGISTER v[r] += x.v[r] == y ? Ints{} + 1 : Ints{};
  }
  PAGEDCORE_INLINE void add_at_least(const Lanes& x, float y) {
    PAGEDCORE_EACH_REGISTER v[r] += x.v[r] >= y ? Ints{} + 1 : Ints{};
  }
  PAGEDCORE_INLINE void flag_nan(const Lanes& x) {
    PAGEDCORE_EACH_REGISTER v[r] = x.v[r] == x.v[r] ? v[r] : Ints{} + 1;
  }

  PAGEDCORE_INLINE bool any() const {
    std::uint64_t words[8];
    std::memcpy(words, v, sizeof words);
    return ((words[0] | words[1]) | (words[2] | words[3]) | (words[4] | words[5]) | (words[6] | words[7])) != 0;
  }
  PAGEDCORE_INLINE std::size_t sum() const {
    std::int32_t lanes[kLanes];
    std::memcpy(lanes, v, sizeof lanes);
    std::size_t total = 0;
    for (const std::int32_t lane : lanes) total += static_cast<std::size_t>(lane);
    return total;
  }
};
