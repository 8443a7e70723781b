#include "pagedcore/error.hpp"

namespace pagedcore {

// Out of line, so that each class has one type_info and catches work across shared objects.
Error::~Error() = default;
InvalidArgument::~InvalidArgument() = default;
OutOfMemory::~OutOfMemory() = default;
Overloaded::~Overloaded() = default;
Unsupported::~Unsupported() = default;
Corrupt::~Corrupt() = default;
Aborted::~Aborted() = default;
Io::~Io() = default;

}  // namespace pagedcore
