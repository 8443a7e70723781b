// str(a, b, ...): the arguments one after another as text, for error messages. Cold code only.
#pragma once

#include <sstream>
#include <string>

namespace pagedcore {

template <class... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

}  // namespace pagedcore
