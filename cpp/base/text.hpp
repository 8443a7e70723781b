// str(a, b, ...): the arguments one after another as text, for error messages, in the classic locale whatever the
// program's is. Cold code only.
#pragma once

#include <locale>
#include <sstream>
#include <string>

namespace pagedcore {

template <class... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  (out << ... << args);
  return out.str();
}

}  // namespace pagedcore
