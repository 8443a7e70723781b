// A new file of an engine's own, for what nobody else should read.
#pragma once

#include <cstdio>
#include <string>

namespace pagedcore {

/// Opened for writing, of mode 0600, and not there before: what is there, a link too, is left alone. Only a FIFO that
/// is being read is taken: whoever made it chose it. Never waits. Throws Io; `what` is what is written there, in the
/// words of messages ("a trace").
std::FILE* new_private_file(const std::string& path, const std::string& what);

}  // namespace pagedcore
