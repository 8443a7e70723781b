// Room in vectors that grow a little at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pagedcore {

/// Room for `size` elements, growing geometrically: a vector that grows by one reallocates O(log n) times.
template <class T>
void grow_capacity(std::vector<T>& vector, std::size_t size) {
  if (size > vector.capacity()) vector.reserve(std::max(size, 2 * vector.capacity()));
}

}  // namespace pagedcore
