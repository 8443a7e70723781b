#include "pagedcore/version.hpp"

namespace pagedcore {

const char* version() noexcept { return PAGEDCORE_VERSION; }

}  // namespace pagedcore
