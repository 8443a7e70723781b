#include "base/private_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

std::FILE* new_private_file(const std::string& path, const std::string& what) {
  constexpr int common = O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;  // never waits for a FIFO's reader
  int fd = ::open(path.c_str(), common | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR);
  struct stat status {};
  if (fd < 0 && errno == EEXIST) {
    const bool is_fifo = ::lstat(path.c_str(), &status) == 0 && S_ISFIFO(status.st_mode);
    if (!is_fifo)
      throw Io(str(path, ": is there already, and ", what, " is written to a new file: remove it, or name another"));
    fd = ::open(path.c_str(), common);
    if (fd >= 0 && (::fstat(fd, &status) != 0 || !S_ISFIFO(status.st_mode))) {
      ::close(fd);
      throw Io(str(path, ": was replaced while ", what, " was created; name another file"));
    }
    if (fd < 0 && errno == ENXIO) throw Io(str(path, ": is a FIFO that nobody reads; name a new file"));
    if (fd >= 0) ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  }
  std::FILE* file = fd < 0 ? nullptr : ::fdopen(fd, "w");
  if (file != nullptr) return file;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  throw Io(str(path, ": ", what, " cannot be created: ", std::strerror(error), "; choose a path that can be written"));
}

}  // namespace pagedcore
